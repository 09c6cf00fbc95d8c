from os import getenv


def starred() -> object:
    return getenv("X")  #! HF104
