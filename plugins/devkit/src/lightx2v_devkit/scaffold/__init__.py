"""New plugin distributions. ``template`` is a whole one, with an implementation of every kind; a new distribution is
the part of it that the wanted kinds need, under another name.

In the repository ``template`` is a link to ``examples/plugins/lightx2v-example``: there is one tutorial, which its own
tests, the documentation and the contract suites hold to. Wheels and source archives have its files.
"""
