"Every notebook runs, as plain `nbdev-test` would run it"
import json, multiprocessing, os, re
from pathlib import Path
import pytest

ROOT = Path(__file__).parents[1]
NBS = sorted(p for p in (ROOT/'nbs').glob('*.ipynb') if not p.name.startswith('_'))

# a process for each notebook, forked from one that has imported what takes long
FORKS = multiprocessing.get_context('forkserver')
FORKS.set_forkserver_preload(['torch','torchvision','timm','pandas','scipy.stats','matplotlib.pyplot','nbdev.test','u1nb.cli',
    'sklearn.datasets','sklearn.linear_model','sklearn.neighbors'])

def run(path, log):
    "Run a notebook; what it says goes into a file"
    fd = os.open(log, os.O_WRONLY|os.O_CREAT)
    for o in (1, 2): os.dup2(fd, o)
    os.environ.update(MPLBACKEND='agg', TQDM_DISABLE='1')
    os.environ.pop('U1NB_DATA', None)
    os.chdir(ROOT)
    multiprocessing.set_start_method(None, force=True)       # as in a process that nobody forked
    from nbdev.test import nbdev_test
    nbdev_test(path, n_workers=0)

@pytest.mark.parametrize('path', NBS, ids=lambda p: p.stem)
def test_notebook(path, tmp_path):
    p = FORKS.Process(target=run, args=(path, tmp_path/'log'))
    p.start()
    p.join()
    out = (tmp_path/'log').read_text(encoding='utf-8')
    assert p.exitcode==0 and 'No files were eligible' not in out and 'Success' in out, out[-4000:]

def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']
def code(path): return [(c, ''.join(c['source'])) for c in cells(path) if c['cell_type']=='code']

@pytest.mark.parametrize('path', NBS, ids=lambda p: p.stem)
def test_outputs_are_stored(path):
    "Cells that end in a value or draw show it, from a run that went through"
    out = [o for c,_ in code(path) for o in c['outputs']]
    assert sum(bool(c['outputs']) for c,_ in code(path))>=5 and not any(o['output_type']=='error' for o in out)

@pytest.mark.parametrize('path', NBS, ids=lambda p: p.stem)
def test_nothing_is_kept_from_running(path):
    "A live cell is a live cell: no skip_exec, and `eval: false` only for widgets"
    text = path.read_text(encoding='utf-8')
    assert 'skip_exec' not in text
    for _,s in code(path): assert not re.search(r'#\|\s*eval:\s*false', s) or 'interact' in s or 'display' in s

def test_there_are_notebooks(): assert len(NBS)>=7
