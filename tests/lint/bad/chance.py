import os
import random
import random as r
import secrets
import uuid
from random import choice, Random
from uuid import uuid4 as new_id

import numpy as np

from holdfast import App, OrchestrationContext

app = App()
SHARED = random.Random(7)


@app.orchestrator
async def chance(ctx: OrchestrationContext, items: list[str]) -> object:
    a = random.random()  #! HF102
    b = r.shuffle(items)  #! HF102
    c = choice(items)  #! HF102
    d = secrets.token_hex()  #! HF102
    e = os.urandom(4)  #! HF102
    f = Random().random()  #! HF102
    g = np.random.default_rng().random()  #! HF102
    h = SHARED.random()  #! HF102
    i = np.random.rand(3)  #! HF102
    return a, b, c, d, e, f, g, h, i


@app.orchestrator
async def ids(ctx: OrchestrationContext) -> list[str]:
    made = [str(uuid.uuid4()) for _ in range(3)]  #! HF103
    made.append(new_id().hex)  #! HF103
    made.append(str(uuid.uuid1()))  #! HF103
    if hash(made[0]) % 2:  #! HF106
        made.sort(key=id)  #! HF106
    return made
