"Pictures that others have: damaged, hostile, endless; folders that loop; data sets that fail in the middle of a pass"
import gc, io, os, random, subprocess, sys, tempfile, threading, warnings
from contextlib import contextmanager
import numpy as np, pyarrow as pa, pyarrow.parquet as pq, pytest, torch
from hypothesis import given, strategies as st
from PIL import EpsImagePlugin, Image
from torch import nn
from torch.utils.data import DataLoader
from u1nb import extract
from u1nb.core import read_tensors, write_tensors
from u1nb.data import BadPicture, Images, Source, images, open_rgb
from u1nb.extract import Collect, activations, observe
from u1nb.memory import Memory, pool
from u1nb.models import bottlenecks, calibrate_bn
from u1nb.study import network

def net(channels=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1)).eval()

def picture(i, size=(20,16)): return Image.fromarray(np.random.default_rng(i).integers(256, size=(*size[::-1],3), dtype=np.uint8))

def to_tensor(img): return torch.from_numpy(np.array(img.resize((16,16)))).permute(2,0,1).float()/255

def plant(root, *paths, **kw):
    for i,p in enumerate(paths):
        (root/p).parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(root/p, **kw)

EPS = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n'

def saved(img, ext, **kw):
    img.save(b := io.BytesIO(), ext, **kw)
    return b.getvalue()

def png_of(w, h): return saved(picture(0), 'png').replace((20).to_bytes(4, 'big')+(16).to_bytes(4, 'big'), w.to_bytes(4, 'big')+h.to_bytes(4, 'big'))

whole = saved(picture(0), 'png')
#: what a picture's file may hold that is no picture
BAD = dict(empty=b'', text=b'hello', cut=whole[:len(whole)//2], eps=EPS, html=b'<html>', zeros=bytes(999), head=whole[:30], flipped=whole[:60]+bytes(40)+whole[100:])

@contextmanager
def provoked():
    "The garbage collector runs at nearly every allocation"
    was = gc.get_threshold()
    gc.freeze(); gc.set_threshold(10, 1, 1)
    try: yield
    finally: gc.set_threshold(*was); gc.unfreeze()

def in_time(work, seconds=120):
    "What `work` returns, unless it hangs"
    box = []
    def run():
        try: box.append((work(), None))
        except BaseException as e: box.append((None, e))
    t = threading.Thread(target=run, daemon=True)
    t.start(); t.join(seconds)
    assert box, 'it hangs'
    if box[0][1] is not None: raise box[0][1]
    return box[0][0]

def same(a, b): return a.index.tolist()==b.index.tolist() and a.labels.tolist()==b.labels.tolist() and np.allclose(a.pooled['2'], b.pooled['2'], 1e-5, 1e-6)

# A pass

def test_passes_over_bad_pictures_with_the_collector_provoked(tmp_path, many, trial, monkeypatch):
    "A refused picture left a stream waiting (deadlock), and pictures of a pass that failed were counted twice: now retried, picture by picture"
    monkeypatch.setattr(extract, 'SAVE_EVERY', 0.)
    model,gen = net(),random.Random(0)
    plant(tmp_path, *[f'pics/{k}/{i:02d}.png' for k in 'ab' for i in range(6)])
    ds = images(tmp_path/'pics')
    files,good = ds.pictures.paths,[open(p, 'rb').read() for p in ds.pictures.paths]
    want,before = observe(model, ds, '2', Collect(pooled=pool), to_tensor),threading.active_count()
    def go(k):
        spoiled = sorted(gen.sample(range(12), 1+k%3))
        for i in spoiled: open(files[i], 'wb').write(BAD[gen.choice([*BAD])])
        seen,memory,kw = Collect(pooled=pool),Memory(layer='2'),dict(save=tmp_path/f'pass{k}') if k%2 else {}
        def once(): return in_time(lambda: observe(model, images(tmp_path/'pics'), '2', [seen,memory], to_tensor, batch_size=1+k%5, **kw))
        for i in spoiled:
            trial(once, names=files[i])
            assert seen.state()==memory.state()=={}
            open(files[i], 'wb').write(good[i])
        trial(once, lambda _: same(seen, want) and len(memory)==12)
    with provoked():
        for k in range(many(6, 200)): go(k)
    assert threading.active_count()==before and not any(m._forward_hooks for m in model.modules())

class Fails:
    "Twelve pictures, one of which does what it should not"
    def __init__(self, at=None, does=None): self.at,self.does,self.asked = at,does,[]
    def __len__(self): return 12
    def __getitem__(self, i):
        self.asked.append(i)
        if i==self.at: return self.does()
        return torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(int(i))),i%3

def raising(e):
    def f(): raise e
    return f
FAULTS = {**{type(e).__name__:raising(e) for e in (OSError('disk'), KeyError('label'), StopIteration(), RuntimeError('no'), AssertionError(), IndexError('the end'), UnicodeError('x'), ZeroDivisionError(), EOFError())},
          'smaller':lambda: (torch.zeros(3,9,9), 1), 'grey':lambda: (torch.zeros(1,16,16), 1), 'flat':lambda: (torch.zeros(3), 1), 'five':lambda: (torch.zeros(1,1,3,16,16), 1),
          'text':lambda: ('no', 1), 'none':lambda: None, 'label .9':lambda: (torch.zeros(3,16,16), .9), 'label cat':lambda: (torch.zeros(3,16,16), 'cat'), 'nan':lambda: (torch.full((3,16,16), torch.nan), 1)}

@pytest.mark.parametrize('fault', FAULTS)
def test_a_data_set_that_fails_in_the_middle(fault, tmp_path, many, trial, monkeypatch):
    "An error without the picture's number, shapes that failed in an observer, labels of .9 that became 0; and what was seen was seen again"
    monkeypatch.setattr(extract, 'SAVE_EVERY', 1e9)
    model,want = net(),observe(net(), Fails(), '2', Collect(pooled=pool))
    for at,size in many([(7,2)], [(a,s) for a in range(12) for s in (1,2,5)]):
        if fault in ('smaller','grey','flat') and not at: continue                              # then the others are of another shape
        file,data,after = tmp_path/f'{at}-{size}',Fails(at, FAULTS[fault]),Fails()
        def go(data): return observe(model, data, '2', Collect(pooled=pool), batch_size=size, save=file)
        said = str(at) if size==1 or 'label' not in fault else ''
        for _ in range(2): trial(lambda: go(data), names=said, kinds=(ValueError,TypeError,FloatingPointError))
        done = int(read_tensors(file)[1]['done']) if file.exists() else 0
        assert done==at//size*size or not at, (done, at, size)
        trial(lambda: go(after), lambda seen: same(seen, want))
        assert [after.asked.count(i) for i in range(1, 12)]==[1+(i>=done) for i in range(1, 12)]        # a look at each, and what was not seen yet

def test_a_loader_that_fails_in_the_middle(trial):
    "A DataLoader's own collate said 'stack expects each tensor to be equal size', and no picture"
    for fault in FAULTS.values():
        trial(lambda: observe(net(), DataLoader(Fails(5, fault), batch_size=4), '2', Collect(pooled=pool), batch_size=1), names='5', kinds=(ValueError,TypeError,FloatingPointError))
    ends = DataLoader(Fails(5, raising(IndexError())), batch_size=4, collate_fn=lambda items: (torch.stack([x for x,_ in items]), torch.tensor([y for _,y in items])))
    trial(lambda: observe(net(), ends, '2', Collect(pooled=pool)), names='picture 5')

def test_a_set_that_ends_early(trial):
    "A loop over `Images` with fewer pictures than labels stopped without a word: IndexError is how loops end"
    ds = Images([picture(0)]*3, [0,1,0,1,0], 'ab', name='short')
    trial(lambda: [k for _,k in ds], names=['picture 3','short'])
    trial(lambda: observe(net(), ds, '2', Collect(pooled=pool), to_tensor), names=['picture 3','short'])
    trial(lambda: ds.readable(), lambda part: len(part)==3 and len(part.skipped)==2)

def test_observers_are_as_they_were(tmp_path, trial, monkeypatch):
    "A memory kept the device of a pass that failed, and its saved state was refused as of 'other observers'"
    monkeypatch.setattr(extract, 'SAVE_EVERY', 0.)
    for m in (Memory(layer='2'), Memory(), Memory(layer='2', size=5)):
        data,file = Fails(8, FAULTS['OSError']),tmp_path/f'{m.size}{m.layer}'
        was = {k:v for k,v in vars(m).items() if k!='_b'}
        trial(lambda: observe(net(), data, '2', m, batch_size=2, save=file), names='picture 8')
        assert {k:v for k,v in vars(m).items() if k!='_b'}==was
        data.at = None
        trial(lambda: observe(net(), data, '2', m, batch_size=2, save=file), lambda o: len(o)==(o.size or 12) and o.seen==12)

def test_a_mended_file_is_gone_on_from(tmp_path, trial, monkeypatch):
    "A picture that was mended made a pass of 'other pictures': the state was refused, and all began anew"
    monkeypatch.setattr(extract, 'SAVE_EVERY', 1e9)
    plant(tmp_path, *[f'pics/a/{i:02d}.png' for i in range(40)])
    def go(model=net()): return observe(model, images(tmp_path/'pics'), '2', Collect(pooled=pool), to_tensor, batch_size=4, save=tmp_path/'pass')
    want,bad = observe(net(), images(tmp_path/'pics'), '2', Collect(pooled=pool), to_tensor),tmp_path/'pics/a/21.png'
    good = bad.read_bytes()
    bad.write_bytes(BAD['cut'])
    trial(go, names='21.png')
    assert read_tensors(tmp_path/'pass')[1]['done']=='20'
    bad.write_bytes(good)
    trial(go, lambda seen: same(seen, want))
    picture(99).save(tmp_path/'pics/a/03.png')                                                  # of those seen, one is another now
    trial(go, names=['keeps a pass of other', 'files'])

# Folders

def scanned(d, **kw):
    "(class → names of its pictures), and what was said, of a folder"
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        ds = in_time(lambda: images(d, **kw), 20)
    found = {}
    for p,k in zip(ds.pictures.paths, ds.labels): found.setdefault(ds.classes[k], []).append(os.path.basename(p))
    return found,' '.join(str(o.message) for o in w)

def link(at, to):
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(to)

AB = {'a':['0.png','1.png'], 'b':['2.png']}
def elsewhere(d): plant(d.parent, 'far/c/5.png'); return d.parent/'far'
LAYOUTS = {
    'plain': (lambda d: None, AB, []),
    'a loop': (lambda d: link(d/'a/loop', '..'), AB, ['links to a folder above (1: a/loop)']),
    'a link to itself': (lambda d: link(d/'a/self', 'self'), AB, ['lead nowhere']),
    'a folder in itself': (lambda d: link(d/'a/me', '.'), AB, ['links to a folder above (1: ']),
    'above the root': (lambda d: (plant(d.parent, 'other/9.png'), link(d/'up', d.parent)), AB, ['folder above (1: up)']),
    'the root of all': (lambda d: link(d/'b/all', '/'), AB, ['folder above']),
    'one into the other': (lambda d: (link(d/'a/x', d/'b'), link(d/'b/y', d/'a')), AB, ['there already (2: ']),
    'a class twice': (lambda d: link(d/'c', 'a'), AB, ['there already (1: c)']),
    'a picture in two classes': (lambda d: link(d/'b/again.png', d/'a/0.png'), AB, ['links to what is there already (1: b/again.png)']),
    'a class elsewhere': (lambda d: link(d/'c', elsewhere(d)/'c'), AB|{'c':['5.png']}, []),
    'a picture elsewhere': (lambda d: link(d/'b/7.png', elsewhere(d)/'c/5.png'), {**AB, 'b':['2.png','7.png']}, []),
    'a loop elsewhere': (lambda d: (link(d/'c', elsewhere(d)/'c'), link(d.parent/'far/c/up', '..'), plant(d.parent, 'far/e/6.png')), AB|{'c':['5.png']}, ['links to a folder above (1: ']),
    'a pipe': (lambda d: os.mkfifo(d/'a/pipe.png'), AB, ['neither files nor folders (1: a/pipe.png)']),
    'a link to a device': (lambda d: link(d/'a/zero.png', '/dev/zero'), AB, ['neither files nor folders']),
    'a dangling link': (lambda d: link(d/'a/gone.png', 'nowhere'), AB, ['lead nowhere (1: a/gone.png)']),
    'mpo': (lambda d: plant(d, 'b/3.mpo', format='MPO', save_all=True, append_images=[picture(4)]), {**AB, 'b':['2.png','3.mpo']}, []),
    'heic': (lambda d: [(d/f'a/{k}.heic').write_bytes(b'ftypheic') for k in range(5)], AB, ['.heic (5: a/0.heic, a/1.heic, a/2.heic, …)']),
    'no extension': (lambda d: (d/'a/IMG_1').write_bytes(whole), AB, ['without extension (1: a/IMG_1)']),
    'an empty class': (lambda d: (d/'c').mkdir(), AB, ['class folders without pictures (1: c)']),
    'beside': (lambda d: plant(d, 'stray.png'), AB, ['files beside the class folders (1: stray.png)']),
    'an eps': (lambda d: (d/'a/x.eps').write_bytes(EPS), AB, ['.eps (1: a/x.eps)']),
    'hidden': (lambda d: plant(d, '.git/x.png', 'a/.x.png'), AB, [])}

@pytest.mark.parametrize('layout', LAYOUTS)
def test_folders(layout, tmp_path, trial):
    "Loops of links mislabelled or hung, a pipe hung, and what was passed over was not said"
    make,want,says = LAYOUTS[layout]
    plant(d := tmp_path/'pics', 'a/0.png', 'a/1.png', 'b/2.png')
    make(d)
    trial(lambda: scanned(d), lambda o: o[0]==want and all(s in o[1] for s in says) and bool(o[1])==bool(says))
    ds = images(d)
    for i in range(len(ds)): ds[i]

def test_folders_that_cannot_be_read(tmp_path, trial, monkeypatch):
    "An unreadable class folder vanished without a word"
    plant(tmp_path, 'pics/a/0.png', 'pics/a/1.png', 'pics/b/2.png', 'pics/c/3.png')
    scan = os.scandir
    def refuse(p='.'):
        if str(p).endswith('pics/c'): raise PermissionError(13, 'Permission denied', str(p))
        return scan(p)
    monkeypatch.setattr(os, 'scandir', refuse)
    trial(lambda: scanned(tmp_path/'pics'), lambda o: o[0]==AB and 'folders that cannot be read (1: c)' in o[1])

def test_splits_with_loops(tmp_path, trial):
    "A link from a class to the root gave each class of each split all pictures"
    d = tmp_path/'pics'
    plant(d, 'train/a/0.png', 'train/b/1.png', 'test/a/2.png', 'devkit/readme/3.png')
    link(d/'train/a/loop', '../..'); (d/'test/again').mkdir(); (d/'labels.csv').write_text('x')
    (d/'train/c').mkdir()
    for split,want in dict(train={'a':['0.png'], 'b':['1.png']}, test={'a':['2.png']}).items():
        trial(lambda: scanned(d, split=split), lambda o: o[0]==want and all(s in o[1] for s in ('links to a folder above (1: train/a/loop)', 'class folders without pictures (2: test/again, train/c)', 'left beside the splits (2: devkit, labels.csv)')))

def random_tree(d, gen):
    "Folders, pictures and links at random; {real path of each picture in a class folder}"
    folders = [d/k for k in 'abc']
    for _ in range(8): folders.append(gen.choice(folders)/f'f{gen.randrange(99)}')
    for o in folders: o.mkdir(parents=True, exist_ok=True)
    for i in range(12): picture(i, (4,4)).save(gen.choice(folders)/f'p{i}.png')
    real = {os.path.realpath(os.path.join(t, f)) for t,_,fs in os.walk(d) for f in fs}
    for i in range(10):
        at,to = gen.choice(folders)/f'l{i}{gen.choice(["",".png"])}',gen.choice([*folders, d, d.parent, *real])
        if not at.exists(): at.symlink_to(to)
    return real

def test_each_real_file_once(tmp_path, many, trial):
    "Whatever links there are: each real picture once, in the class whose folder it is in"
    for seed in range(many(10, 200)):
        real = random_tree(d := tmp_path/f'{seed}/pics', random.Random(seed))
        def right(ds):
            of = {os.path.realpath(p):ds.classes[k] for p,k in zip(ds.pictures.paths, ds.labels)}
            return len(ds)==len(of) and set(of)==real and all(os.path.relpath(p, os.path.realpath(d)).split(os.sep)[0]==k for p,k in of.items())
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            trial(lambda: in_time(lambda: images(d), 20), right)

@pytest.mark.parametrize('name', ['photos','spare',*[pytest.param(o, marks=pytest.mark.torture) for o in ('digits','scenes')]])
def test_a_folder_with_the_name_of_embedded_pictures(name, tmp_path, trial, monkeypatch):
    "A folder called `digits` was not looked at, and nobody was told"
    monkeypatch.chdir(tmp_path)
    plant(tmp_path, f'{name}/a/0.png', f'{name}/a/1.png', f'{name}/b/2.png')
    def told():
        with pytest.warns(UserWarning, match=f"'{name}' are pictures that packages ship, not {tmp_path/name}"): return images(name, n=9)
    trial(told, lambda ds: len(ds)==9)
    trial(lambda: scanned(f'./{name}'), lambda o: o==(AB,''))
    trial(lambda: scanned(tmp_path/name), lambda o: o==(AB,''))

def test_three_in_ten_bad(tmp_path, many, trial):
    "errors='skip': counts are exact, and the others keep their labels"
    for seed in range(many(2, 30)):
        gen,d = random.Random(seed),tmp_path/f'{seed}'
        n = gen.randrange(10, 90)
        for i in range(n): plant(d, f'{gen.choice("abc")}/{i:03d}.{gen.choice(["png","bmp","tif","webp","gif"])}')
        ds = images(d)
        bad = set(gen.sample(range(n), round(.3*n)))
        for i in bad: open(ds.pictures.paths[i], 'wb').write(gen.choice([*BAD.values(), png_of(60_000, 1), png_of(13_300, 13_300)]))
        def right(part):
            left = [i for i in range(n) if i not in bad]
            return part.index.tolist()==left and part.labels.tolist()==ds.labels[left].tolist() and len(part.skipped)==len(bad) and all(any(ds.pictures.paths[i] in s for s in part.skipped) for i in bad)
        with pytest.warns(UserWarning, match=f'{len(bad)} of {n} pictures'): trial(lambda: images(d, errors='skip'), right)
        seen = observe(net(), part := images(d, errors='skip'), '2', Collect(pooled=pool), to_tensor)
        assert seen.labels.tolist()==part.labels.tolist()
    for p in ds.pictures.paths: open(p, 'wb').close()
    trial(lambda: images(d, errors='skip'), names=[f'{n} of {n} pictures', '.'])

# Files that ask for too much, or for what is not theirs

def parquet(file, cells, labels, names=None):
    t = pa.table({'image':cells, 'label':labels})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(t, file)
    return file

def test_labels_that_ask_for_terabytes(tmp_path, trial):
    "A label of 2^40 made as many class names, and so did K of a memory's file"
    for top in (10**6, 2**31, 2**40, 2**62):
        trial(lambda: images(parquet(tmp_path/'x.parquet', [whole]*3, [0,1,top])), names=[top,'3 pictures'])
        trial(lambda: images([(picture(0),0), (picture(1),top)]), names=[top,'label'])
        m = Memory()
        m.add(torch.randn(4, 8), torch.tensor([0,1,2,0])); m.save(f := tmp_path/'memory')
        tensors,text = read_tensors(f)
        write_tensors(f, tensors, **{**text, 'memory':text['memory'].replace('"K": 3', f'"K": {top}')})
        trial(lambda: Memory.open(f), names=[top,'memory'])
    for labels in ([.9,0], [1.7,0], [-.5,0], [float('nan'),0], [-1,0], ['a',0], [2**70,0], [1j,0], [[0,1],[1,0]]):
        trial(lambda: images([(picture(0),y) for y in labels]), names='label')
    trial(lambda: images([(picture(0),y) for y in (1,np.int8(0),torch.tensor(2),True)]), lambda ds: ds.labels.tolist()==[1,0,2,1])
    trial(lambda: images(parquet(tmp_path/'y.parquet', [whole]*3, [0,5,99_999])), lambda ds: len(ds.classes)==100_000)

def test_a_path_may_not_leave_its_folder(tmp_path, trial):
    "A parquet row's path could name any file of the machine"
    plant(tmp_path, 'secret.png', 'set/own/a.png'); os.mkfifo(tmp_path/'set/pipe.png')
    for path in ('../secret.png', str(tmp_path/'secret.png'), 'own/../../secret.png', '../set2/a.png', './/..//secret.png', '/dev/zero', 'pipe.png', 'own', '..', 'nowhere.png', 'own/a.png\0'):
        ds = images(parquet(tmp_path/'set/x.parquet', [{'bytes':None, 'path':path}], [0]))
        trial(lambda: in_time(lambda: ds[0], 20), names=['x.parquet','row 0'])
    for path in ('own/a.png', './own/a.png', str(tmp_path/'set/own/a.png')):
        ds = images(parquet(tmp_path/'set/x.parquet', [{'bytes':None, 'path':path}], [0]))
        trial(lambda: ds[0][0], lambda img: img.size==(20,16))

def test_ghostscript_is_never_started(tmp_path, trial, monkeypatch):
    "An EPS named .jpg made Pillow start another program"
    gs = tmp_path/'gs'
    gs.write_text(f'#!/bin/sh\necho started >> {tmp_path}/ran\nexit 1\n'); gs.chmod(0o755)
    monkeypatch.setattr(EpsImagePlugin, 'gs_binary', str(gs))
    (tmp_path/'d/a').mkdir(parents=True); (tmp_path/'d/a/x.jpg').write_bytes(EPS)
    trial(lambda: open_rgb(tmp_path/'d/a/x.jpg'), names='x.jpg')
    trial(lambda: images(tmp_path/'d')[0], names='x.jpg')
    trial(lambda: images(tmp_path/'d', errors='skip'), names='x.jpg')
    trial(lambda: images(parquet(tmp_path/'x.parquet', [EPS], [0]))[0], names='row 0')
    lazy = lambda: Image.open(tmp_path/'d/a/x.jpg')
    trial(lambda: images([(lazy(), 0)])[0], names=['EPS','picture 0'])
    trial(lambda: Source([(lazy(), 0)], to_tensor).batch([0]), names=['EPS','picture 0'])
    trial(lambda: activations(net(), lazy(), '2', to_tensor), names='EPS')
    assert not (tmp_path/'ran').exists()
    for ext in ('pcx','sgi','ico','dds','tga'):
        if ext.upper() in Image.SAVE or f'.{ext}' in Image.registered_extensions(): trial(lambda: open_rgb(io.BytesIO(saved(picture(0), ext))), names='JPEG, PNG')

def test_limits_on_pixels_and_sides(many, trial, monkeypatch):
    "A 1×60,000 picture or one of 13,300² took gigabytes and minutes"
    for w,h in ((60_000,1), (1,60_000), (13_300,13_300), (2**31-1,2**31-1), (30_000,3_000), (0,5)):
        trial(lambda: open_rgb(io.BytesIO(png_of(w, h)), 'big.png'), names='big.png')
    for size in ((100,1), (3,300)): trial(lambda: open_rgb(io.BytesIO(saved(picture(0, size), 'png'))), lambda o: o.size==size)
    trial(lambda: Source([(picture(0, (500,2)), 0)], to_tensor).batch([0]), names=['500×2','U1NB_MAX_ASPECT'])
    with monkeypatch.context() as m:
        m.setattr(Image, 'MAX_IMAGE_PIXELS', 300)
        trial(lambda: open_rgb(io.BytesIO(whole), 'x'), names=['320 pixels','300','U1NB_MAX_PIXELS'])
        m.setattr(Image, 'MAX_IMAGE_PIXELS', None)
        trial(lambda: open_rgb(io.BytesIO(whole), 'x'), lambda o: o.size==(20,16))
    if not many(0, 1): return
    code = "import io; from PIL import Image; from u1nb.data import open_rgb\nfor s in ((20,16),(40,1)):\n    Image.new('RGB', s).save(b := io.BytesIO(), 'png')\n    try: open_rgb(b); print('read')\n    except ValueError as e: print(e)"
    p = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'U1NB_MAX_PIXELS':'3e2', 'U1NB_MAX_ASPECT':'30'}, capture_output=True, text=True)
    assert '320 pixels, and at most 300' in p.stdout and 'more than 30 times' in p.stdout, p

def test_float_pictures(trial):
    "A float TIFF just outside [0,1] turned black"
    ramp = np.linspace(0, 1, 320, dtype=np.float32).reshape(16,20)
    def grey(a): return np.asarray(open_rgb(io.BytesIO(saved(Image.fromarray(a), 'tiff')), 'x.tif'))[...,0]
    want = np.rint(ramp*255)
    for lo,hi in ((0,1), (-1e-6,1+1e-6), (-.05,1.05), (0,1.3)):
        a = (lo+(hi-lo)*ramp).astype(np.float32)
        trial(lambda: grey(a), lambda g: np.abs(g-np.rint(a.clip(0, 1)*255)).max()<=1)
    for hi in (255, 254.3, 256, 300, 40): trial(lambda: grey(ramp*np.float32(hi)), lambda g: np.abs(g-(ramp*hi).clip(0, 255)).max()<=1)
    trial(lambda: grey(np.zeros((16,20), np.float32)), lambda g: not g.any())
    for a in (ramp*1000, ramp*2-1, ramp*5-2.5, ramp*3, ramp*65535, ramp*-1, np.where(ramp>.5, np.nan, ramp), np.where(ramp>.5, np.inf, ramp), np.where(ramp>.5, -np.inf, ramp)):
        trial(lambda: grey(a.astype(np.float32)), names=['x.tif','[0,1] or [0,255]'])
    for a in ((ramp*2**30).astype(np.int32), (ramp*-9).astype(np.int32)): trial(lambda: grey(a), names=['x.tif','16 bits'])
    trial(lambda: grey((ramp*65535).astype(np.int32)), lambda g: np.abs(g-want).max()<=1)

@pytest.mark.torture
def test_bytes_at_random(trial):
    "Files of every format, cut and with bytes changed: a picture of that size, or an error that names the file"
    gen = random.Random(0)
    for ext,kw in [('jpeg',{}), ('png',{}), ('gif',{}), ('bmp',{}), ('tiff',{}), ('tiff',dict(compression='tiff_lzw')), ('webp',{}), ('ppm',{}), ('jpeg2000',{}), ('avif',{})]:
        if ext.upper() not in Image.SAVE: continue                                              # of a Pillow without it
        b = saved(picture(0), ext, **kw)
        for _ in range(150):
            c = bytearray(b[:gen.randrange(len(b))] if gen.random()<.3 else b)
            for _ in range(gen.randrange(1, 9)):
                if c: c[gen.randrange(len(c))] = gen.randrange(256)
            trial(lambda: in_time(lambda: open_rgb(io.BytesIO(bytes(c)), f'my.{ext}'), 60), lambda o: o.mode=='RGB' and o.width*o.height<=Image.MAX_IMAGE_PIXELS, names=f'my.{ext}')

# Networks

def cnn(): return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))

def test_sizes_and_networks_that_are_none(trial):
    "`bottlenecks(net, '64')` looked at 6×4 pixels"
    for bad in ('64', '6', (64,), 64.5, 64., 0, -3, (0,64), (64,64,64), None, [64,'a'], (64.,64), '64x64'): trial(lambda: bottlenecks(cnn(), bad), names=[repr(bad),'(H,W)'])
    for good in (64, (64,64), [64,64], np.int64(64), torch.Size([64,64])): trial(lambda: bottlenecks(cnn(), good), lambda o: (o[-1].height,o[-1].width)==(32,32))
    for bad in ('resnet18', (cnn(),len), None, len, cnn().state_dict(), [cnn()]): trial(lambda: bottlenecks(bad, 64), names=[type(bad).__name__,'nn.Module'])

def test_nan_pictures_for_batch_norm(trial):
    "Statistics of NaN pictures were taken, and every later activation was NaN"
    norm,x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),torch.randn(4, 3, 8, 8)
    for v in (torch.nan, torch.inf, -torch.inf):
        y = x.clone(); y[2,1,3,3] = v
        for data in (y, list(y)): trial(lambda: calibrate_bn(norm, data), names='pictures [2]')
    trial(lambda: calibrate_bn(norm, x), lambda o: o[1].running_mean.isfinite().all())

class ViT(nn.Module):
    def __init__(self, layers=2, D=64, K=1000, p=8, size=32, stem=1):
        super().__init__()
        self.patch = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(stem-1)], nn.Conv2d(3, D, p, p))
        self.pos = nn.Parameter(torch.zeros(1, (size//p)**2, D))
        self.body,self.head = nn.TransformerEncoder(nn.TransformerEncoderLayer(D, 4, 2*D, batch_first=True), layers),nn.Linear(D, K)
    def forward(self, x): return self.head(self.body(self.patch(x).flatten(2).mT+self.pos).mean(1))

class Pooled(nn.Module):
    "A CNN whose head attends over sites, as CLIP's ResNets do"
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(*[o for a,b in ((3,16),(16,32),(32,64),(64,64)) for o in (nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())])
        self.attend,self.head = nn.MultiheadAttention(64, 4, batch_first=True),nn.Linear(64, 5)
    def forward(self, x):
        x = self.body(x).flatten(2).mT
        return self.head(self.attend(x, x, x)[0].mean(1))

@pytest.mark.filterwarnings('ignore:enable_nested_tensor')
def test_small_transformers_are_no_cnn(trial):
    "A small two-layer ViT slipped through as a CNN: its patches and its head have more parameters than its layers"
    for kw in (dict(), dict(layers=1), dict(D=32, p=16, size=64), dict(K=10), dict(layers=4, D=128), dict(stem=3), dict(D=16, K=5000)):
        trial(lambda: bottlenecks(ViT(**kw), kw.get('size', 32)), names=['is no CNN','tokens'])
    for o in (cnn(), Pooled(), net()): trial(lambda: bottlenecks(o, 64), lambda ls: len(ls)>=1)

def test_grey_networks_say_which_transform(trial):
    "A network of one channel failed inside its convolution"
    from torchvision import transforms as T
    grey,rgb,pics = net(1),net(),[(picture(i, (16,16)), i%2) for i in range(4)]
    for run in (lambda m,t: observe(m, pics, '2', Collect(pooled=pool), t), lambda m,t: activations(m, pics[0][0], '2', t), lambda m,t: observe(m, pics, '2', Collect(pooled=pool), t, save=None, batch_size=2)):
        trial(lambda: run(grey, T.ToTensor()), names=['3×16×16','Grayscale(1)'])
        trial(lambda: run(rgb, T.Compose([T.Grayscale(), T.ToTensor()])), names=['1×16×16','Grayscale(3)'])
        trial(lambda: run(grey, T.Compose([T.Grayscale(1), T.ToTensor()])), lambda o: True)
    trial(lambda: bottlenecks(grey, 16), lambda ls: ls[-1].channels==16)
    for x in (torch.zeros(4,3,16,16).double(), torch.zeros(4,3,16,16).byte()): trial(lambda: observe(rgb, x, '2', Collect(pooled=pool)), names='refuses a picture of 3×16×16')

@pytest.mark.torture
@pytest.mark.parametrize('kind', ['ViTImageProcessor','CLIPImageProcessor','ConvNextImageProcessor'])
def test_processors_of_hugging_face(kind, trial):
    "An image processor is a transform, and so is a processor of texts and pictures"
    tf = pytest.importorskip('transformers')
    p,pics = getattr(tf, kind)(),[(picture(i, (40,30)), i%2) for i in range(3)]
    want = torch.stack([torch.as_tensor(p(images=x, return_tensors='pt')['pixel_values'])[0] for x,_ in pics])
    class Both:
        "As CLIPProcessor: called with a picture first it would take it for a text"
        image_processor = p
        def __call__(self, text=None, images=None): raise ValueError('text is a str')
    for t in (p, Both()):
        trial(lambda: Source(pics, t).batch([0,1,2])[0], lambda x: torch.equal(x, want))
        trial(lambda: network(net(), transform=t), lambda n: torch.equal(n.transform(pics[0][0]), want[0]) and n.larger(pics[0][0]).shape[-1]==2*want.shape[-1])
        trial(lambda: activations(net(), pics[1][0], '2', t)['2'], lambda a: torch.allclose(a, activations(net(), want[1], '2')['2'], atol=1e-5))

# One truth, however it is looked at

REF = {}
def reference(n, h, w):
    if (n,h,w) not in REF:
        x = torch.randn(n, 3, h, w, generator=torch.Generator().manual_seed(n+100*h+w))
        REF[n,h,w] = x,observe(net(), x, '2', Collect(pooled=pool), batch_size=n)
    return REF[n,h,w]

def formed(x, how):
    "The same numbers in another memory"
    if how=='channels last': return x.contiguous(memory_format=torch.channels_last)
    if how=='every second': return torch.stack([x, x+1], 1).flatten(0, 1)[::2]
    if how=='a window': return torch.nn.functional.pad(x, (2,3,1,4))[:,:,1:1+x.shape[2],2:2+x.shape[3]]
    return x.mT.contiguous().mT if how=='columns first' else x

@given(st.data())
def test_observe_does_not_depend_on_how(data):
    "Batch size, streams, order, memory formats, loaders, sharding and an interruption: the same values of the same pictures"
    d = data.draw
    n,h,w = d(st.integers(1, 13)),d(st.sampled_from([5,16,23])),d(st.sampled_from([4,16]))
    x,want = reference(n, h, w)
    order,model,how = d(st.permutations(range(n))),net(),dict(batch_size=d(st.none() | st.integers(1, n+1)), device='cpu')
    x = formed(x, d(st.sampled_from(['','channels last','every second','a window','columns first'])))
    items,form = [(x[i], i%3) for i in order],d(st.sampled_from(['list','tensor','loader','shuffled','own collate']))
    pics = dict(list=items, tensor=x[order]).get(form) if form in ('list','tensor') else DataLoader(items, batch_size=d(st.integers(1, 5)), shuffle=form=='shuffled', num_workers=d(st.integers(0, 2)),
        collate_fn=(lambda o: (torch.stack([a for a,_ in o]), torch.tensor([b for _,b in o]))) if form=='own collate' else None)
    was = torch.get_num_threads()
    torch.set_num_threads(d(st.integers(1, 3)))
    try:
        if form in ('list','tensor') and n>1 and d(st.booleans()):                     # in shards, merged in any order
            cut = d(st.integers(1, n-1))
            parts = [observe(model, pics[a:b], '2', Collect(pooled=pool), **how) for a,b in ((0,cut),(cut,n))]
            for q,first in zip(parts, (0,cut)): q._parts['index'] = [o+first for o in q._parts['index']]
            a,b = parts if d(st.booleans()) else parts[::-1]
            a.merge(b)
            seen = a
        elif form=='list' and d(st.booleans()):                                         # interrupted, and gone on with
            at,asked = d(st.integers(0, n-1)),[]
            class Breaks(list):
                def __getitem__(self, i):
                    asked.append(i)
                    if i==at and asked.count(i)==2: raise OSError('gone')               # after the look at it
                    return super().__getitem__(i)
            with tempfile.TemporaryDirectory() as t:
                kw = dict(how, save=f'{t}/pass')
                with pytest.raises(BadPicture, match=f'picture {at} '): observe(model, Breaks(items), '2', Collect(pooled=pool), **kw)
                seen = observe(model, Breaks(items), '2', Collect(pooled=pool), **kw)
        else: seen = observe(model, pics, '2', Collect(pooled=pool), **how)
    finally: torch.set_num_threads(was)
    assert seen.index.tolist()==list(range(n))
    assert seen.labels.tolist()==([-1]*n if form=='tensor' else [i%3 for i in order])
    np.testing.assert_allclose(seen.pooled['2'], want.pooled['2'][list(order)], 1e-5, 1e-6)
