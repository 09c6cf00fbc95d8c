RATES = {"x": 2}
LIMITS = {"x": 2}


def raise_limits() -> None:
    LIMITS["x"] += 1
