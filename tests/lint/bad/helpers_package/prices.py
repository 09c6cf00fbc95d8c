from time import time

from .star import starred as other


def price() -> float:
    return time()  #! HF101


def today_price() -> float:
    other()
    return price()
