"""`python -m actors.scripted`: the simulation alone."""

from actors.scripted.serving import main

main()
