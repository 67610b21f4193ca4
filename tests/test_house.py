"One direction through the house: rooms by number, public names, sizes that a reader can live with"
import ast, json, re, subprocess, sys, time
from pathlib import Path
import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {}                                               # module → number of its notebook
for p in sorted((ROOT/'nbs').glob('*.ipynb')):
    cells = [''.join(c['source']) for c in json.loads(p.read_text(encoding='utf-8'))['cells']]
    if m:=next((m for s in cells if (m:=re.search(r'#\| default_exp (\w+)', s))), None): ROOMS[m[1]] = int(p.name[:2])
TREES = {m:ast.parse((ROOT/f'u1nb/{m}.py').read_text(encoding='utf-8')) for m in ROOMS}

def public(tree): return next((ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], 'id', '')=='__all__'), [])

def imports(tree):
    "(module, names) of this package, inside functions too"
    for n in ast.walk(tree):
        if isinstance(n, ast.ImportFrom) and (n.level or (n.module or '').startswith('u1nb')):
            yield (n.module or '').split('.')[-1], [a.name for a in n.names]
        if isinstance(n, ast.Import): yield from ((a.name.split('.')[-1], []) for a in n.names if a.name.startswith('u1nb.'))

@pytest.mark.parametrize('room', ROOMS)
def test_a_room_imports_from_rooms_below_it(room):
    for module,names in imports(TREES[room]):
        assert ROOMS[module]<ROOMS[room], f'{room} imports {module}'
        assert not [n for n in names if n.startswith('_')], f'{room} imports {names} of {module}'

@pytest.mark.parametrize('room', ROOMS)
def test_sizes(room):
    "Lines end by column 120; no class above 150 lines, no function above 12 parameters"
    text = (ROOT/f'u1nb/{room}.py').read_text(encoding='utf-8')
    text = text[:text.index('__all__')]+text[text.index(']', text.index('__all__')):]          # nbdev wraps that list
    assert [l for l in text.splitlines() if len(l)>120]==[]
    for n in ast.walk(TREES[room]):
        if isinstance(n, ast.ClassDef): assert n.end_lineno-n.lineno<150, n.name
        if isinstance(n, (ast.FunctionDef,ast.AsyncFunctionDef)):
            a = n.args
            assert len(a.args)+len(a.kwonlyargs)+len(a.posonlyargs)<=12, n.name

def test_public_names():
    "A user meets at most 120 names, each in one place"
    names = [n for t in TREES.values() for n in public(t)]
    assert len(names)<=120 and sorted(set(names))==sorted(names), [n for n in names if names.count(n)>1]

def test_notebooks_end_by_column_120():
    for p in sorted((ROOT/'nbs').glob('*.ipynb')):
        for c in json.loads(p.read_text(encoding='utf-8'))['cells']:
            if c['cell_type']=='code': assert max(map(len, ''.join(c['source']).split('\n')))<=120, (p.name, c['id'])

def test_readme_shows_the_rooms():
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    for p in sorted((ROOT/'nbs').glob('*.ipynb')): assert f'(nbs/{p.name})' in text, p.name

def test_no_code_selects_by_words():
    "Rows are selected by columns; labels are for people"
    for f in [*ROOT.glob('u1nb/*.py'), *ROOT.glob('nbs/*.ipynb')]:
        text = f.read_text(encoding='utf-8')
        assert not re.search(r"\[.(control|key|reading).\]\.(startswith|endswith|replace|split)|in r\[.control.\]", text), f.name

def test_import_is_light():
    "`import u1nb` costs no more than torch, and less until something is asked for"
    code = 'import sys; import u1nb; assert "torch" not in sys.modules; u1nb.images'
    p = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert p.returncode==0, p.stderr
