"""How an environment travels to a sampler: as something picklable that builds it there."""

from sb3_walle.samplers.factories.call_arguments import call_arguments
from sb3_walle.samplers.factories.named_modules import named_modules
from sb3_walle.samplers.factories.packing import EnvFactory, PackedFactories, packed
from sb3_walle.samplers.factories.pickled_env import PickledEnv, factory_from_env
from sb3_walle.samplers.factories.registrations import Registrations, RegistryWatch
from sb3_walle.samplers.factories.spec import SpecFactory, factory_from_id, pickle_main_module_by_value

__all__ = [
    "EnvFactory",
    "PackedFactories",
    "PickledEnv",
    "Registrations",
    "RegistryWatch",
    "SpecFactory",
    "call_arguments",
    "factory_from_env",
    "factory_from_id",
    "named_modules",
    "packed",
    "pickle_main_module_by_value",
]
