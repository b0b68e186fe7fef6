"""New plugin distributions. ``template`` is a complete one with an implementation of every kind; a new distribution is
the part of it that the requested kinds need, under another name.

In the repository ``template`` is a link to ``examples/plugins/lightx2v-example``, the single tutorial that is tested by
its own tests, the documentation and the contract suites. Wheels and source archives contain its files.
"""
