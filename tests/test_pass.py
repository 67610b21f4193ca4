"One pass: killed, failed, tried again, and shared by processes, it says what an undisturbed one says"
import gc, math, os, subprocess, sys, textwrap, threading
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from u1nb.core import Results, read_tensors
from u1nb.data import Source, images
from u1nb.energy import EnergyMap
from u1nb.extract import Collect, activations, observe
from u1nb.memory import Memory, pool
from u1nb.models import pretrained
from u1nb.store import Activations
ENV = {**os.environ, 'OMP_NUM_THREADS':'1', 'TQDM_DISABLE':'1', 'CUDA_VISIBLE_DEVICES':''}
ENV.pop('U1NB_DATA', None)

#: four observers of a small network on made pictures, for processes of their own
SCENE = textwrap.dedent('''
    import os, random, signal, sys, time, torch
    torch.set_num_threads(1)
    from pathlib import Path
    from u1nb import extract
    from u1nb.core import processes
    from u1nb.energy import EnergyMap
    from u1nb.extract import Collect, observe
    from u1nb.memory import Memory, pool
    from u1nb.store import Activations
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a,self.b = torch.nn.Conv2d(3, 16, 3, 2, 1),torch.nn.Conv2d(16, 24, 3, 2, 1)
        def forward(self, x): return self.b(self.a(x).relu())
    class Pictures:
        labels = [i%4 for i in range(131)]
        def __len__(self): return 131
        def __getitem__(self, i): return torch.randn(3, 48, 48, generator=torch.Generator().manual_seed(i)),i%4
    def go(out, save=True):
        obs = [EnergyMap('all'), Memory(layer='b'), Memory(layer='b', size=40), Collect(pooled=pool), Activations(out/'acts', shard=3e5)]
        return observe(Net(), Pictures(), ['a','b'], obs, batch_size=3, device='cpu', save=out/'pass.safetensors' if save else None)
    ''')

def run(code, *args, launch=(), timeout=200):
    p = subprocess.run([sys.executable, *launch, *map(str, args)] if code is None else [sys.executable, '-c', code, *map(str, args)], env=ENV, capture_output=True, text=True, timeout=timeout)
    assert p.returncode==0, p.stderr[-3000:]
    return p.stdout

@pytest.mark.parametrize('launch', [['torch.distributed.run','--standalone','--nproc_per_node','3'],
    ['accelerate.commands.launch','--multi_gpu','--num_processes','2','--num_machines','1','--mixed_precision','no','--dynamo_backend','no','--main_process_port','PORT']], ids=['torchrun 3','accelerate 2'])
def test_shared(launch, tmp_path, says, free_port):
    "Two and three processes see each picture once, and all end with what one process ends with"
    script,want = says
    run(None, '-m', *(free_port if o=='PORT' else o for o in launch), script, tmp_path, 'save')
    files = sorted(tmp_path.glob('says*.pt'))
    assert len(files)==(3 if '3' in launch else 2)
    for f in files:
        for k,v in torch.load(f).items(): torch.testing.assert_close(v, want[k], rtol=1e-6, atol=1e-6, equal_nan=True)
    assert not list(tmp_path.glob('pass.safetensors.*')) and read_tensors(tmp_path/'pass.safetensors')[1]['done']=='131'

@pytest.fixture(scope='module')
def says(tmp_path_factory):
    "A script that writes what its observers say, and what they say in one process"
    d = tmp_path_factory.mktemp('shared')
    script = d/'script.py'
    script.write_text(SCENE+textwrap.dedent('''
        root = Path(sys.argv[1])
        energy,memory,few,values,acts = go(root, save=len(sys.argv)>2)
        q = torch.randn(20, 24, generator=torch.Generator().manual_seed(9))
        torch.save(dict(energy=torch.from_numpy(energy.frame().drop(columns='layer').to_numpy()), mean=energy.mean('b'), classes=energy.class_means('a'), votes=memory.votes(q), few=few.votes(q),
                        ids=few.ids.sort().values, pooled=torch.from_numpy(values.pooled['b']), labels=torch.from_numpy(values.labels), acts=torch.from_numpy(acts['b'][:])), root/f'says{processes()[0]}of{processes()[1]}.pt')
        '''))
    run(None, script, d)
    return script,torch.load(d/'says0of1.pt')

def test_one_fails_all_fail(tmp_path):
    script = tmp_path/'script.py'
    script.write_text(SCENE+textwrap.dedent('''
        class Bad(Pictures):
            def __getitem__(self, i):
                if i==100: raise OSError('picture 100 cannot be read')
                return super().__getitem__(i)
        try: observe(Net(), Bad(), 'b', Collect(pooled=pool), device='cpu')
        except Exception as e: print(f'{type(e).__name__} {e}\\n', end='', flush=True)
        '''))
    said = run(None, '-m','torch.distributed.run','--standalone','--nproc_per_node','2', script, timeout=60).splitlines()
    why = 'picture 100 of Bad: OSError: picture 100 cannot be read'
    assert sorted(said)==[f'BadPicture {why}', f'RuntimeError process 2 of 2 failed with BadPicture: {why}']

def test_command_shared(tmp_path, monkeypatch):
    "A command under torchrun: one report, with the rows of one process"
    (tmp_path/'net.py').write_text('import torch\ndef make(): return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, 2, 1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 3))\n')
    ds = images('digits', n=200)
    for k in range(3):
        (tmp_path/f'pics/{k}').mkdir(parents=True)
        for i in [i for i,y in enumerate(ds.labels) if y==k][:8]: ds[i][0].resize((32,32)).save(tmp_path/f'pics/{k}/{i}.png')
    args = ['--model','net:make','--size','32','--seeds','1','--cells','6', '--data','pics','--claims','C2,C6']
    run = [sys.executable, '-m','torch.distributed.run','--standalone','--nproc_per_node','2','-m','u1nb.cli','probe']
    p = subprocess.run([*run, *args, '--out','two'], cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=200)
    assert p.returncode==0 and p.stdout.count(' rows, and everything ')==1, p.stderr[-3000:]
    monkeypatch.chdir(tmp_path); monkeypatch.setenv('TQDM_DISABLE', '1')
    from u1nb.cli import main
    main('probe', [*args, '--out', 'one', '--device', 'cpu'])
    one,two = (Results.load(tmp_path/o/'rows.jsonl') for o in ('one','two'))
    key = lambda r: (r['claim'], r['key'], r.get('layer'), r.get('control'), r.get('mode'))
    assert [key(r) for r in one]==[key(r) for r in two] and (tmp_path/'two/index.html').exists()
    number = lambda r: math.nan if r.get('value') is None else r['value']
    for a,b in zip(one, two): assert number(a)==pytest.approx(number(b), rel=1e-5, abs=1e-6, nan_ok=True), key(a)

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, 2, 1)).eval()

class Folder(list):
    "Pictures, some of which cannot be read at first"
    threads = True
    def __init__(self, n, bad=()): super().__init__(range(n)); self.bad = set(bad)
    def __getitem__(self, i):
        if i in self.bad: raise ValueError(f'picture {i} cannot be read')
        return torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(int(i))),int(i)%3

def test_tried_again_no_picture_counts_twice():
    model,data = net(),Folder(12, bad=[7])
    memory,energy,seen = Memory(layer='2'),EnergyMap(),Collect(pooled=pool)
    for at in (7, 9, 11):
        data.bad = {at}
        with pytest.raises(ValueError, match=f'picture {at}'): observe(model, data, '2', [memory, energy, seen], batch_size=2)
        assert (len(memory._b), energy.layers, seen.state())==(0, [], {})
    data.bad = set()
    observe(model, data, '2', [memory, energy, seen], batch_size=2)
    assert len(memory)==len(energy.frame())==len(seen.index)==12
    fresh = Memory(layer='2').fill(model, Folder(12))
    q = torch.randn(9, 16)
    torch.testing.assert_close(memory.votes(q), fresh.votes(q))
    memory.fill(model, Folder(5))                                            # another data set may follow
    assert len(memory)==17

def test_refused_pictures_leave_nothing_behind():
    "Passes that are refused, with the collector provoked from starting threads: no deadlock, no thread, no hook"
    model = net()
    observe(model, Folder(4), '2', Collect(pooled=pool))                       # tqdm starts a thread of its own, once
    before = threading.active_count()
    def work():
        for k in range(25):
            try: observe(model, Folder(40, bad=[k]), '2', Collect(pooled=pool), batch_size=4)
            except ValueError: pass
            t = threading.Thread(target=gc.collect); t.start(); t.join()
    was = gc.get_threshold(); gc.freeze(); gc.set_threshold(10, 1, 1)
    try:
        w = threading.Thread(target=work, daemon=True); w.start(); w.join(60)
        assert not w.is_alive(), 'the passes hang'
    finally: gc.set_threshold(*was); gc.unfreeze()
    assert threading.active_count()==before and not any(m._forward_hooks for m in model.modules())

def test_however_many_streams():
    "One core or several: the same numbers, bit for bit, and torch's threads are as they were"
    torch.manual_seed(0)
    model,x,was,states = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(64, 128, 3, 2, 1)).eval(),torch.randn(150, 3, 64, 64),torch.get_num_threads(),[]
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try: states.append([o.state() for o in observe(model, x, ['0','2'], [EnergyMap('all'), Collect(pooled=pool)], device='cpu')])
        finally: now = torch.get_num_threads(); torch.set_num_threads(was)
        assert now==threads
    for other in states[1:]:
        for a,b in zip(states[0], other): assert a.keys()==b.keys() and all(torch.equal(v.nan_to_num(), b[k].nan_to_num()) for k,v in a.items())

def test_what_is_saved_belongs_to_a_pass(tmp_path):
    def z(a):
        "a docstring"
        return a.mean((2,3))
    def same(a):
        "another docstring"   # and a comment
        return a.mean((2,3))
    same.__name__,same.__qualname__ = z.__name__,z.__qualname__
    model,file = net(),tmp_path/'pass'
    observe(model, Folder(9), '2', Collect(z=z), save=file)
    seen = observe(model, Folder(9), '2', Collect(z=z), save=file)                     # finished: read, not run
    assert len(seen.index)==9
    other = net()
    with torch.no_grad(): other[0].bias += 1
    def sums(a): return a.sum((2,3))
    for args,says in (((other, Folder(9), '2', Collect(z=z)), 'weights'), ((model, Folder(8), '2', Collect(z=z)), 'pictures, n'), ((model, Folder(9), '0', Collect(z=z)), 'layers'),
                      ((model, Folder(9), '2', Collect(z=sums)), 'observers'), ((model, Folder(9), '2', EnergyMap()), 'observers'), ((model, [(x+1,y) for x,y in (Folder(9)[i] for i in range(9))], '2', Collect(z=z)), 'pictures, look')):
        with pytest.raises(ValueError, match=f'{says}.*Give another file'): observe(*args, save=file)
    (tmp_path/'cut').write_bytes(file.read_bytes()[:-9])
    with pytest.warns(UserWarning, match='put aside'): again = observe(model, Folder(9), '2', Collect(z=z), save=tmp_path/'cut')
    assert again.index.tolist()==seen.index.tolist()

def test_docstrings_are_no_code(tmp_path):
    "The same observers from two files that differ in a docstring, a comment and layout"
    from importlib.util import module_from_spec, spec_from_file_location
    from u1nb.core import code_digest
    def module(text):
        (tmp_path/'made.py').write_text(text); spec = spec_from_file_location('made', tmp_path/'made.py')
        sys.modules['made'] = m = module_from_spec(spec); spec.loader.exec_module(m)
        import linecache; linecache.checkcache()
        return code_digest(m.See)
    a = module('LIMIT = 3\ndef f(x):\n    "Doc"\n    return x+LIMIT\nclass See:\n    "Doc"\n    def update(self, x): return f(x)\n')
    b = module('LIMIT = 3\n\n\ndef f(x):\n    """Another\n    doc"""\n    return x + LIMIT   # a comment\nclass See:\n    def update(self, x):\n        "Doc"\n        return f(x)\n')
    c = module('LIMIT = 4\ndef f(x):\n    "Doc"\n    return x+LIMIT\nclass See:\n    "Doc"\n    def update(self, x): return f(x)\n')
    assert a==b!=c

def test_what_users_have():
    "A DataLoader, torchvision's and Hugging Face's data sets and processors, and one picture give the same activations"
    import datasets as hf
    from torchvision import datasets as tv, transforms as T
    t = T.Compose([T.Resize(24), T.CenterCrop(24), T.ToTensor()])
    pics = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (30,40,3), dtype=np.uint8)) for i in range(7)]
    y,model = [0,1,2,0,1,2,0],net()
    want = observe(model, list(zip(pics, y)), '2', Collect(pooled=pool), t)
    class Processor:
        def __call__(self, images, return_tensors=None): return {'pixel_values':[t(images).numpy()]}
    fake = tv.FakeData(7, (3,30,40), 3, transform=t)
    for data,transform in ((torch.utils.data.DataLoader([(t(p), k) for p,k in zip(pics, y)], batch_size=3, shuffle=True, num_workers=1), None), (hf.Dataset.from_dict({'image':pics, 'label':y}, hf.Features({'image':hf.Image(), 'label':hf.ClassLabel(3)})), t),
                           (list(zip(pics, y)), Processor()), ([dict(img=p, labels=k) for p,k in zip(pics, y)], t)):
        got = observe(model, data, '2', Collect(pooled=pool), transform)
        np.testing.assert_allclose(got.pooled['2'], want.pooled['2'], atol=1e-5)
        assert got.labels.tolist()==y
    assert observe(model, fake, '2', Collect(pooled=pool)).labels.tolist()==[int(fake[i][1]) for i in range(7)]
    np.testing.assert_allclose(pool(activations(model, pics[3], '2', t)['2'])[0], want.pooled['2'][3], atol=1e-5)
    m = Memory(layer='2').fill(model, list(zip(pics, y)), t)
    assert m.predict(pics[3], model=model, transform=t).tolist()==m.predict(torch.from_numpy(want.pooled['2'][3:4])).tolist()
    with pytest.raises(TypeError, match='give the network too'): m.predict(pics[3])
    with pytest.raises(TypeError, match='has no numbers of pictures'): observe(model, (p for p in pics), '2', Collect(pooled=pool), t)
    with pytest.raises(TypeError, match="an item has no 'image'"): Source([{'text':'a'}]).batch([0])

def test_extract(tmp_path):
    "The body of `u1nb-extract`: every layer in half precision, and a layer that is not there"
    from u1nb.store import extract
    model,transform = pretrained('mobilenet_v2')
    a = extract(model, transform, 'digits', layers='all', out=tmp_path/'o', n=4, dtype='float16')
    assert len(a.layers)==5 and a['features'].shape==(4,1280,7,7) and a['features'].dtype==np.float16
    with pytest.raises(ValueError, match="no layer 'nowhere'"):
        extract(model, transform, 'digits', layers='nowhere', out=tmp_path/'o2', n=4)

def test_progress_of_the_caller(tmp_path, monkeypatch):
    "A bar counts every picture once: seen now, seen before a pass was cut off, and read from a finished file"
    from tqdm.auto import tqdm
    monkeypatch.setattr('u1nb.extract.SAVE_EVERY', 0.)
    model,data = net(),Folder(12, bad=[7])
    def go(bar): return observe(model, data, '2', Collect(pooled=pool), batch_size=2, save=tmp_path/'pass', progress=bar)
    def bar(): return tqdm(disable=False, file=open(os.devnull, 'w'))
    first,second,third = bar(),bar(),bar()
    with pytest.raises(ValueError, match='picture 7'): go(first)
    data.bad = set()
    go(second); go(third)
    assert (second.n, third.n)==(12, 12) and first.n<=6

def test_refusals_of_a_pass(tmp_path):
    model,data = net(),Folder(6)
    class Mean:
        def update(self, acts, labels, index): pass
    for error,says,call in (
        (ValueError, 'at least 1', lambda: observe(model, data, '2', Collect(pooled=pool), batch_size=-2)),
        (TypeError, 'Mean has no state', lambda: observe(model, data, '2', Mean(), save=tmp_path/'state')),
        (ValueError, 'no layers given', lambda: observe(model, data, [], Mean())),
        (TypeError, 'a Source has its own', lambda: observe(model, Source(data), '2', Mean(), transform=len)),
        (ValueError, "'state' is a word", lambda: Collect(state=pool)),
        (ValueError, 'nothing observed', lambda: Collect(pooled=pool).index),
        (AttributeError, 'z is not in', lambda: Collect(pooled=pool).z),
        (ValueError, r'is \(1,\) for 6 pictures', lambda: observe(model, data, '2', Collect(z=lambda a: a.sum()[None]))),
        (ValueError, r'is \(B,C,H,W\) or', lambda: activations(model, torch.zeros(3,3), '2'))):
        with pytest.raises(error, match=says): call()

def test_refusals_of_the_store(tmp_path):
    observe(net(), Folder(6), '2', acts := Activations(tmp_path/'a'))
    with pytest.raises(OverflowError, match='65504'): Activations(tmp_path/'big', 'float16').update({'t':torch.full((1,2,3,3), 1e6)})
    with pytest.raises(KeyError, match="no layer '0' in"): acts['0']
    with pytest.raises(FileNotFoundError, match='is not finished'): Activations.open(tmp_path/'nowhere')
    with pytest.raises(ValueError, match='no dtype'): Activations(tmp_path/'b', 'int8')
