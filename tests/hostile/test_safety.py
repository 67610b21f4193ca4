"What SECURITY.md promises of the package's own code, read off its syntax: no pickle, no shell, nothing evaluated"
import ast
from pathlib import Path
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = {f.name:f.read_text(encoding='utf-8') for f in sorted((ROOT/'u1nb').glob('*.py'))}

UNPICKLE = {'pickle','cPickle','_pickle','dill','cloudpickle','joblib','shelve','marshal','jsonpickle','pickletools'}
NAMES = {'eval','exec','compile','__import__','execfile'}
CALLS = {'os.system':'a shell', 'os.popen':'a shell', 'commands.getoutput':'a shell', 'subprocess.getoutput':'a shell', 'subprocess.getstatusoutput':'a shell',
    'asyncio.create_subprocess_shell':'a shell', 'pty.spawn':'a shell', 'yaml.load':'builds objects', 'yaml.unsafe_load':'builds objects', 'yaml.full_load':'builds objects',
    'pd.read_pickle':'pickle', 'pandas.read_pickle':'pickle', 'torch.hub.load':'runs code of others', 'torch.jit.load':'runs code of others', 'tempfile.mktemp':'a name that others may take',
    'shutil.unpack_archive':'leaves its folder', 'load_module':'runs code of others', 'run_path':'runs code of others'}
METHODS = {'extractall':'leaves its folder', 'to_pickle':'pickle', 'save_state':'pickle (Accelerate)', 'load_state':'pickle (Accelerate)', 'register_for_checkpointing':'pickle (Accelerate)'}
LOADS_MODULES = {'__init__.py':1, 'study.py':1}     # the package's own rooms; module:function that a user names, as README says

def dotted(f):
    return f'{dotted(f.value)}.{f.attr}' if isinstance(f, ast.Attribute) else getattr(f, 'id', '')

def literal(node): return getattr(node, 'value', node)

def findings(text):
    "(line, what) of all that is not to be"
    for n in ast.walk(ast.parse(text)):
        if isinstance(n, (ast.Import,ast.ImportFrom)):
            names = [a.name for a in n.names] if isinstance(n, ast.Import) else [n.module or '']
            yield from ((n.lineno, f'imports {m}') for m in names if m.split('.')[0] in UNPICKLE)
        if not isinstance(n, ast.Call): continue
        name,words = dotted(n.func),{k.arg:k.value for k in n.keywords}
        last = name.rpartition('.')[2] or getattr(n.func, 'attr', '')
        if name in NAMES: yield n.lineno, f'{name}(…)'
        if name in CALLS or last in CALLS: yield n.lineno, f'{name}: {CALLS.get(name) or CALLS[last]}'
        if last in METHODS: yield n.lineno, f'{last}: {METHODS[last]}'
        if name.endswith('torch.load') or name=='torch.load':
            if literal(words.get('weights_only')) is not True: yield n.lineno, 'torch.load without weights_only=True'
        if literal(words.get('weights_only', True)) is not True: yield n.lineno, 'weights_only is to be True'
        if literal(words.get('allow_pickle', False)) is not False: yield n.lineno, 'allow_pickle'
        if literal(words.get('shell', False)) is not False: yield n.lineno, 'a shell'
        if literal(words.get('trust_remote_code', False)) is not False: yield n.lineno, 'code of others'
        if literal(words.get('verify', True)) is False: yield n.lineno, 'certificates are not looked at'
        if name.startswith('subprocess.') and n.args and isinstance(n.args[0], (ast.JoinedStr,ast.BinOp,ast.Constant)): yield n.lineno, 'a command as text; give a list'
        if name=='Image.open' and 'formats' not in words: yield n.lineno, 'Image.open without formats: an EPS starts Ghostscript'
        if last=='Environment' and literal(words.get('autoescape')) is not True: yield n.lineno, 'jinja2 without autoescape'

@pytest.mark.parametrize('file', PACKAGE)
def test_the_package(file, trial):
    trial(lambda: list(findings(PACKAGE[file])), lambda found: found==[], kinds=())

def test_modules_that_are_loaded_by_name(trial):
    "One place loads what a user names as module:function"
    def loads(text): return sum(isinstance(n, ast.Call) and dotted(n.func).endswith('import_module') for n in ast.walk(ast.parse(text)))
    trial(lambda: {f:k for f,t in PACKAGE.items() if (k := loads(t))}, lambda found: found==LOADS_MODULES)

@pytest.mark.parametrize('line', ['import pickle', 'from joblib import load', 'import torch.x, dill as d', 'torch.load(f)', 'torch.load(f, weights_only=False)', 'torch.load(f, weights_only=w)',
    'np.load(f, allow_pickle=True)', 'eval(s)', 'exec(s)', 'compile(s, "", "exec")', '__import__(s)', 'os.system(s)', 'os.popen(s)', 'subprocess.run(s, shell=True)',
    'subprocess.run(f"ls {s}")', 'subprocess.check_output("ls "+s)', 'subprocess.run("ls")', 'yaml.load(f)', 'pd.read_pickle(f)', 'df.to_pickle(f)', 'zip.extractall(p)', 'tempfile.mktemp()',
    'torch.hub.load(a, b)', 'Image.open(f)', 'jinja2.Environment()', 'Environment(autoescape=False)', 'acc.save_state(f)', 'load_dataset(n, trust_remote_code=True)', 'get(u, verify=False)'])
def test_the_reader_sees(line, trial):
    trial(lambda: list(findings(line)), bool, kinds=())

@pytest.mark.parametrize('line', ['model.eval()', 're.compile(s)', 'torch.compile(net)', 'torch.load(f, weights_only=True)', 'subprocess.run(["git", *words])', 'subprocess.run(words)',
    'Image.open(f, formats=FORMATS)', 'Environment(autoescape=True)', 'json.load(f)', 'acc.scaler.load_state_dict(s)'])
def test_and_lets_pass(line, trial):
    trial(lambda: list(findings(line)), lambda found: found==[], kinds=())

def test_security_names_its_tests():
    "SECURITY.md is short, and each test that it names is there"
    import re
    text = (ROOT/'SECURITY.md').read_text(encoding='utf-8')
    named = re.findall(r'`(tests/[\w/]+\.py)`', text)
    assert len(text.splitlines())<=40 and named and all((ROOT/f).exists() for f in named), named

# The same at work

class Runs:
    "What makes a file where it is unpickled"
    def __init__(self, file): self.file = file
    def __reduce__(self): return open, (str(self.file), 'w')

def test_nothing_is_unpickled(tmp_path, many, trial):
    "A pickle that makes a file, under every name and to every reader: refused by name, and nothing made"
    import pickle, torch
    from u1nb.core import Results, read_tensors
    from u1nb.data import images
    from u1nb.memory import Memory
    from u1nb.models import load_weights
    from u1nb.nets import build
    from u1nb.store import Activations
    from u1nb.study import network
    from u1nb.train import restore
    made = tmp_path/'made'
    def pickled(p): p.write_bytes(pickle.dumps(dict(state_dict=Runs(made), weight=Runs(made))))
    def saved(p): torch.save(dict(state_dict=Runs(made)), p)
    readers = dict(weights=lambda p: load_weights(build('resnet20', 10), p), network=lambda p: network(str(p), 'resnet18'), bare=lambda p: network(str(p)),
        memory=Memory.open, rows=Results.load, tensors=read_tensors, run=restore, pictures=images, store=Activations.open)
    for write in (pickled, saved):
        for end in ('pt','safetensors','jsonl','parquet','pth','bin','pkl','npy','png')[:many(4, 9)]:
            write(p := tmp_path/f'evil.{end}')
            for read in readers.values(): trial(lambda: read(p))
    assert not made.exists()

def test_weights_by_their_hash(tmp_path, trial):
    "Packaged weights whose SHA-256 is not the one in their name are refused"
    import hashlib
    from u1nb.models import check_hash
    for k in (8, 16, 64):
        for cut in (0, 1):
            data = bytes(range(200))
            file = tmp_path/f'net-{hashlib.sha256(data).hexdigest()[:k]}.pth'
            file.write_bytes(data[cut:])
            trial(lambda: check_hash(file, 'some-package'), None if cut else lambda _: True, [file.name,'SHA-256'], ValueError)
