from dataclasses import dataclass, field

from holdfast import App, OrchestrationContext, when_all

app = App()
CITIES = frozenset({"Oslo", "Rome"})


@app.activity
async def greet(city: str) -> str:
    return city


@dataclass
class Trip:
    cities: set[str] = field(default_factory=set)

    def all_cities(self) -> set[str]:
        return self.cities | {"Paris"}


@app.orchestrator
async def sets(ctx: OrchestrationContext, trip: Trip) -> object:
    for city in {"Oslo", "Rome"}:  #! HF105
        await ctx.call_activity(greet, city)
    await when_all(ctx.call_activity(greet, city) for city in CITIES)  #! HF105
    unique = set(["a", "b"])
    first = next(iter(unique))  #! HF105
    listed = list(unique)  #! HF105
    joined = ", ".join(unique)  #! HF105
    a, b = unique  #! HF105
    for name in trip.cities - unique:  #! HF105
        first += name
    numbered = [*enumerate(unique)]  #! HF105
    spread = [*unique]  #! HF105
    mapping = {city: 1 for city in trip.all_cities()}  #! HF105
    for key in mapping.keys() - {"Rome"}:  #! HF105
        first += key
    last = unique.pop()  #! HF105
    if any([await ctx.call_activity(greet, city) for city in CITIES]):  #! HF105
        last += a
    await ctx.map(greet, unique)  #! HF105
    return first, listed, joined, b, numbered, spread, last
