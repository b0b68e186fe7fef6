"""New plugin distributions. ``template`` is a whole one, with an implementation of every kind; a new distribution is
the part of it that the wanted kinds need, under another name."""
