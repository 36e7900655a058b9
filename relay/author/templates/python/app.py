"""Pack `{{name}}`. What its commands take and give is written in wit/pack.wit; this is what they do."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.{{snake}} import Greeting, Person, Refusal_Denied, Refusal_Failed, Refusal_NoName
from wit_world.imports import system


class {{Camel}}(exports.{{Camel}}):
    """One class for each interface that the world exports."""

    def greet(self, person: Person) -> Greeting:
        if not person.name:
            raise Err(Refusal_NoName())
        title = f"{person.title} " if person.title else ""
        return Greeting(f"Hello, {title}{person.name}!", uptime())


def uptime() -> int:
    try:
        return system.read().uptime
    except Err as error:
        denied = isinstance(error.value, system.SystemError_Denied)
        raise Err((Refusal_Denied if denied else Refusal_Failed)(error.value.value))
