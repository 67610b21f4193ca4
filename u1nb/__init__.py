"U(1) symmetry breaking in the bottlenecks of CNNs: what a first script needs, imported when it is asked for"
__version__ = "0.1.0"

#: name → the module that has it
_HOME = {name:module for module,names in {
    'data':'images',
    'models':'pretrained bottlenecks',
    'extract':'activations observe Collect',
    'energy':'EnergyMap plot_map',
    'angle':'order_parameter class_bias',
    'memory':'Memory',
    'loss':'OneHotU1Loss attach_u1 class_angles',
    'train':'fit',
    'study':'network Study Sets',
    'cli':'reproduce'}.items() for name in names.split()}

def __getattr__(name):
    if name not in _HOME: raise AttributeError(f'u1nb has no {name!r}; it has {", ".join(_HOME)}, and its modules')
    from importlib import import_module
    return getattr(import_module(f'u1nb.{_HOME[name]}'), name)

def __dir__(): return [*globals(), *_HOME]
