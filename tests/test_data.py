"Pictures: subsets hold the rows that they always held, and what is refused"
import gzip, hashlib, io, json, os, pickle, subprocess, sys
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq, pytest
from PIL import Image, ImageOps
from torchvision import datasets as tv
from u1nb import data as room
from u1nb.core import rng
from u1nb.data import BadPicture, Images, Source, images, noise, open_rgb, planted, quotas, shift_view, shifted, to_rgb, turned

def short(rows): return hashlib.sha256(np.asarray(rows, dtype='<i8').tobytes()).hexdigest()[:8]

#: set → (seed → what its parts held before a set had parts of its own)
HELD = {
    'digits': {0:dict(take50='09808988', take9='251ea4e2', take3='696c699e', halves=('6612a5f9','974ae625'), few='2ef67285', noisy='81b8cf9c',
                      fifth=('1239b30c','f3248786'), third=('6f49b4ad','db6b7997')),
               1:dict(halves=('3d019f1b','e02ae2df'), few='f1a5557b', noisy='8fa7fb05', fifth=('9eff026a','e17d3ea5'), third=('2040fd84','f82840e4')),
               3:dict(take50='fb5cf049', take9='66e2d558', take3='604d75f3')},
    'photos': {0:dict(take9='22736e83', take3='ae2d169f', halves=('e3b0c442','8d638659'), few='b5e48c65', noisy='3ac6b260', ungrouped=('bca5ed9d','c0ab117e')),
               1:dict(halves=('e3b0c442','8d638659'), few='7746eda1', noisy='fbb8df09', ungrouped=('b399c50f','42f1b883')),
               3:dict(take9='9b7a5ae7', take3='ffb9be2f')}}

@pytest.mark.parametrize('name,n,per_class', [('digits',200,3), ('photos',14,1)])
def test_parts_are_the_old_parts(name, n, per_class):
    ds = images(name, n=n)
    def at(part): return short(part.within(ds))
    def two(parts): return tuple(map(at, parts))
    def rows(parts): return tuple(short(p.index) for p in parts)
    for seed,held in HELD[name].items():
        got = {f'take{k}':at(ds.take(k, seed)) for k in (50,9,3) if k<n}
        got |= dict(halves=two(ds.halves(seed)), few=short(ds.few(per_class, seed).index), noisy=short(ds.noisy(.3, seed).labels),
                    fifth=rows(ds.hold_out(.2, seed)), third=rows(ds.hold_out(1/3, seed)))
        alone = Images(ds.pictures, ds.labels, ds.classes)
        got['ungrouped'] = tuple(short(p.within(alone)) for p in alone.hold_out(.2, seed))
        assert {k:got[k] for k in held}==held
    assert at(ds.take(n))==short(range(n)) and ds.halves()[0].split==f'{ds.split}, memory half'

def test_parts_of_parts():
    ds = images('digits', n=200)
    few = ds.take(100).take(20, 5)
    assert short(few.within(ds))=='b25b2cdc'
    assert (few.within(ds.take(100))==ds.take(100).take(20, 5).within(ds.take(100))).all()
    less = images('digits', n=40, seed=1).without(ds)
    assert (len(less), short(less.within(images('digits', n=40, seed=1))))==(36, '8b0b39a1')
    assert len(ds.without(ds.take(20)))==180 and ds.without(None) is ds and ds.without(shifted(ds)) is ds
    assert not set(ds.halves()[0].index)&set(ds.halves()[0].without(few).index)&set(few.index)

def test_no_group_in_both():
    "Groups of one to five pictures, in no order: hold-out and halves part none, and groups of one are no groups"
    for seed in range(20):
        gen = rng(seed, 'groups')
        y,g = gen.integers(3, size=90),gen.permutation(np.arange(90)//gen.integers(1, 6))
        ds = Images([None]*90, y, 'abc', g)
        for a,b in (ds.hold_out(.3, seed), ds.halves(seed)):
            assert not set(a.groups)&set(b.groups) and len(a)+len(b)==90
            assert len(np.unique(np.concatenate([a.index, b.index])))==90
        names = gen.permutation(90)                     # each picture its own group, under any name
        one,none = Images([None]*90, y, 'abc', names),Images([None]*90, y, 'abc')
        assert [p.index.tolist() for p in one.hold_out(.3, seed)]==[p.index.tolist() for p in none.hold_out(.3, seed)]

def test_rows_carry_what_pictures_have():
    ds = images('photos', n=14)
    ds.theta = np.arange(14)/14
    part = ds.take([3,1,1])
    assert (part.theta==ds.theta[[3,1,1]]).all() and part.groups.tolist()==ds.groups[[3,1,1]].tolist()
    assert (part.name,part.classes,part.split)==(ds.name,ds.classes,ds.split) and len(ds)==14
    assert ds.take(ds.labels==2).labels.tolist()==[2,2]
    assert np.array_equal(part[0][0], ds[3][0])
    again = pickle.loads(pickle.dumps(shifted(part)))
    assert np.array_equal(again[2][0], shifted(part)[2][0])

def test_refusals():
    ds = images('digits', n=20)
    with pytest.raises(ValueError, match='no part of'): ds.within(images('photos', n=7))
    with pytest.raises(ValueError, match='no part of'): ds.within(ds.take(5))
    with pytest.raises(ValueError, match='at least one'): ds.take(0)
    with pytest.raises(ValueError, match='at least 1'): ds.few(0)
    with pytest.raises(ValueError, match='between 0 and 1'): ds.hold_out(1)
    with pytest.raises(ValueError, match='between 0 and 1'): ds.noisy(2)
    with pytest.raises(ValueError, match='no other'): Images([0], [0], 'a').noisy(.5)
    with pytest.raises(ValueError, match='2 labels for 20'): ds.relabelled([1,2])
    with pytest.raises(IndexError): ds.take([20])
    with pytest.raises(ValueError, match="not 'down'"): turned(ds, 'down')

def test_any_data_set():
    "A data set of someone else's: its labels, classes and groups, or those read from its items"
    img = Image.new('L', (6,4), 9)
    ds = images([(img,1), (img,0)])
    assert (ds.labels.tolist(), ds.classes, ds[0][0].mode, ds.name)==([1,0], ['0','1'], 'RGB', 'list')
    class Own:
        targets,classes,groups,threads = [0,1,1],['cat','cup'],['a','b','b'],True
        def __len__(self): return 3
        def __getitem__(self, i): return img,self.targets[i]
    ds = images(Own())
    assert (ds.name,ds.classes,ds.groups.tolist(),ds.threads,len(images(Own(), n=2)))==('Own', ['cat','cup'], ['a','b','b'], True, 2)
    assert images(ds) is ds and len(images(ds, n=2))==2

def test_look_tells_parts_apart():
    ds = images('digits', n=200)
    small = lambda img: np.asarray(img, dtype=np.float32).transpose(2, 0, 1)/255
    looks = [Source(o, small).look() for o in (ds, ds.take(100), ds.take(100, 1), shifted(ds), shifted(ds, 1), shifted(ds.take(100)), shifted(ds.take(100, 1)), turned(ds, 'mirrored'), ds.noisy(.2))]
    assert len({str(o) for o in looks})==len(looks)
    assert len({o['known'] for o in looks[1:3]+looks[5:7]})==4

# Files, folders and sets

scene = Image.fromarray((np.indices((48,64)).sum(0)[...,None]*[2,1,0] + [0,40,90]).astype(np.uint8))
scene.paste((230,40,40), (6,6,22,18))

def off(a, b): return np.abs(np.asarray(a, dtype=int)-np.asarray(b, dtype=int)).max()

def plant(root, *paths):
    for p in paths:
        (root/p).parent.mkdir(parents=True, exist_ok=True)
        scene.save(root/p)

def jpeg(k):
    b = io.BytesIO()
    shift_view(scene, k, 0).save(b, 'jpeg', quality=95)
    return b.getvalue()

def shard(file, rows, labels, names=('left','right')):
    features = {'image':{'_type':'Image'}, 'label':{'names':names, '_type':'ClassLabel'}}
    t = pa.table({'id':list(rows), 'image':[{'bytes':jpeg(k), 'path':f'{k}.jpg'} for k in rows], 'label':labels})
    t = t.replace_schema_metadata({'huggingface':json.dumps({'info':{'features':features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(t, file, row_group_size=2)

@pytest.fixture
def root(tmp_path, monkeypatch):
    "A folder of data, an empty cache, and no Debian"
    monkeypatch.setenv('U1NB_DATA', str(tmp_path/'root'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.setattr(room, '_DEBIAN', tmp_path/'debian')
    (tmp_path/'root').mkdir()
    return tmp_path/'root'

@pytest.mark.parametrize('k', range(1, 9))
def test_upright(k):
    "All eight orientations, against Pillow's own answer"
    img = scene.copy()
    img.getexif()[0x0112] = k
    img.info['exif'] = img.getexif().tobytes()
    want = ImageOps.exif_transpose(img)
    got = to_rgb(img)
    assert got.size==want.size and off(got, want)==0 and off(to_rgb(got), got)==0 and not got.info

def test_odd_modes():
    grey = np.asarray(scene.convert('L'))
    want = scene.convert('L').convert('RGB')
    for a in (grey.astype(np.float32)/255, grey.astype(np.float32), grey.astype(np.int32)*257, grey.astype(np.uint16)*257):
        assert off(to_rgb(Image.fromarray(a)), want)==0, a.dtype
    assert to_rgb(Image.new('1', (2,2), 1)).getpixel((0,0))==(255,255,255)
    assert to_rgb(Image.new('LA', (2,2), (10,0))).getpixel((0,0))==(255,255,255)
    for see_through,value in ((5,255), (4,7)):                 # a palette with one transparent entry
        p = Image.new('P', (2,2), 5)
        p.putpalette([7]*768)
        p.info['transparency'] = see_through
        assert to_rgb(p).getpixel((0,0))==(value,)*3
    broken = scene.copy()
    broken.info['exif'] = b'Exif\0\0nonsense'
    assert off(to_rgb(broken), scene)==0

@pytest.mark.parametrize('ext', ['jpg','png','gif','bmp','tif','webp','ppm'])
def test_cut_files(ext, tmp_path):
    scene.resize((200,150)).save(tmp_path/f'whole.{ext}')
    b = (tmp_path/f'whole.{ext}').read_bytes()
    assert open_rgb(tmp_path/f'whole.{ext}').size==(200,150)
    for share in (.3,.6,.9):
        (tmp_path/f'cut.{ext}').write_bytes(b[:int(share*len(b))])
        with pytest.raises(BadPicture, match=f'cut.{ext}: not a readable picture') as e: open_rgb(tmp_path/f'cut.{ext}')
    assert str(pickle.loads(pickle.dumps(e.value)))==str(e.value)         # as it comes back from a worker

def test_quotas():
    for n in range(40):
        sizes = np.array([3,0,10,7,12])
        q = quotas(sizes, n, seed=n)
        assert q.sum()==min(n, 32) and (q<=sizes).all() and max(q)-min(q[q<sizes], default=max(q))<=1
    lab = np.repeat(np.arange(4), [5,50,20,50])
    nested = [set(room._subset(lab, 4, n, 0)) for n in range(1, 126)]
    assert all(a<b for a,b in zip(nested, nested[1:]))
    often = np.bincount(np.concatenate([room._subset(lab, 4, 40, s) for s in range(400)]), minlength=125)[5:55]/400
    assert abs(often.mean()-35/3/50)<.01 and often.std()<3*(.23*.77/400)**.5        # each row of a class is as likely

def test_splits_and_folders(tmp_path):
    paths = {'train.parquet':'train', 'data/test-00000-of-00003.parquet':'test', 'default/val/0000.parquet':'valid', 'x_dev.parquet':'valid', 'contest.parquet':None}
    assert {p:room._split_of(Path(p)) for p in paths}==paths
    assert [room._pick('toy', dict.fromkeys(o.split(), 1), None) for o in ('train test','train valid','train','all')]==['test','valid','train','all']
    assert room._pick('toy', {'train':1,'test':None}, None)=='train' and room._pick('toy', {'train':1,'valid':1}, 'validation')=='valid'
    plant(tmp_path, 'flat/cat/a.png', 'flat/cat/deep/er/b.JPG', 'flat/bus/c.webp', 'flat/train/d.png', 'flat/.git/e.png', 'flat/bus/.f.png')
    (tmp_path/'flat/bus/readme.txt').write_text('no picture'); (tmp_path/'flat/empty').mkdir()
    ds = images(tmp_path/'flat')
    assert (ds.split,ds.classes,ds.labels.tolist(),[Path(p).name for p in ds.pictures.paths])==('all', ['bus','cat','train'], [0,1,1,2], ['c.webp','a.png','b.JPG','d.png'])
    plant(tmp_path, 'splits/train/cat/a.png', 'splits/train/dog/b.png', 'splits/val/dog/c.png', 'splits/test/images/d.png')
    (tmp_path/'splits/devkit').mkdir()
    ds = images(tmp_path/'splits', 'val')
    assert (len(ds),ds.classes[ds[0][1]],ds.name,ds.split)==(1, 'dog', 'splits', 'valid')
    with pytest.raises(ValueError, match="'test' of 'splits' is not there; labelled: 'train', 'valid'"): images(tmp_path/'splits', 'test')
    plant(tmp_path, 'unlabelled/train/a.png', 'unlabelled/val/b.png')
    with pytest.raises(ValueError, match='train, val in .* hold no folders of classes'): images(tmp_path/'unlabelled')
    plant(tmp_path, *[f'broken/cat/{k}.jpg' for k in range(4)])
    (tmp_path/'broken/cat/1.jpg').write_bytes((tmp_path/'broken/cat/0.jpg').read_bytes()[:500])
    with pytest.raises(BadPicture, match='broken.cat.1.jpg: not a readable picture'): images(tmp_path/'broken')[1]

def test_labels():
    def col(*o): return pa.chunked_array([list(o)])
    assert room._label_ids({'train':col(0,2)})[1]==['0','1','2']
    assert room._label_ids({'train':col(0,-1)}, ['a','b'])[0]=={'train':None} and room._label_ids({'train':col(0,None)})[0]=={'train':None}
    assert room._label_ids({'train':col('b','a').dictionary_encode()})[1]==['a','b'] and room._label_ids({'train':col(True,False)})[0]['train'].tolist()==[1,0]
    with pytest.raises(ValueError, match='only 1 class names'): room._label_ids({'train':col(0,1)}, ['a'])
    with pytest.raises(ValueError, match='whole numbers or text'): room._label_ids({'train':col(.5)})

def test_parquet(tmp_path):
    shard(tmp_path/'table/train-00000-of-00002.parquet', range(5), [0,1,0,1,0]); shard(tmp_path/'table/train-00001-of-00002.parquet', range(5,8), [1,1,0])
    shard(tmp_path/'table/test.parquet', range(3), [-1]*3)
    ds = images(str(tmp_path/'table'))
    assert (ds.split,ds.labels.tolist(),ds.classes,len(ds.pictures.at))==('train', [0,1,0,1,0,1,1,0], ['left','right'], 5)
    for i in (7,0,5,4,3,6): assert np.abs(np.asarray(ds[i][0], dtype=int)-np.asarray(shift_view(scene, i, 0))).mean()<4
    assert images(tmp_path/'table', n=4).labels.tolist().count(0)==2
    assert images(tmp_path/'table/train-00001-of-00002.parquet').labels.tolist()==[1,1,0]
    pq.write_table(pa.table({'image':[jpeg(0), b'junk', None], 'label':['b','a','b']}), tmp_path/'plain.parquet')
    ds = images(tmp_path/'plain.parquet')
    assert (ds.labels.tolist(),ds.classes,ds[0][0].size)==([1,0,1], ['a','b'], (64,48))
    with pytest.raises(BadPicture, match='plain.parquet, row 1: not a readable'): ds[1]
    with pytest.raises(BadPicture, match='row 2: no picture'): ds[2]
    pq.write_table(pa.table({'x':[1.,2.], 'label':[0,1]}), tmp_path/'numbers.parquet')
    with pytest.raises(ValueError, match='numbers.parquet|needed are columns.* has x, label'): images(tmp_path/'numbers.parquet')
    (tmp_path/'cut.parquet').write_bytes((tmp_path/'plain.parquet').read_bytes()[:-20])
    with pytest.raises(ValueError, match='no readable parquet'): images(tmp_path/'cut.parquet')

def test_hub(tmp_path, monkeypatch):
    "Without the hub: `datasets` reads a local folder of that relative name"
    for k,v in dict(HF_HOME=str(tmp_path/'hf'), HF_HUB_OFFLINE='1', HF_DATASETS_OFFLINE='1', HF_DATASETS_DISABLE_PROGRESS_BARS='1').items(): monkeypatch.setenv(k, v)
    shard(tmp_path/'owner/pictures/data/train-00000-of-00001.parquet', range(4), [0,1,1,0])
    shard(tmp_path/'owner/pictures/data/validation-00000-of-00001.parquet', range(4,6), [1,0])
    monkeypatch.chdir(tmp_path)
    ds = images('hf:owner/pictures')
    assert (ds.split,ds.labels.tolist(),ds.classes,ds[1][0].size)==('valid', [1,0], ['left','right'], (64,48))
    assert len(images('hf:owner/pictures', 'train'))==4
    assert off(pickle.loads(pickle.dumps(ds))[0][0], open_rgb(io.BytesIO(jpeg(4))))==0

def save_mnist(d, zipped, ext):
    def idx(file, a):
        a = np.asarray(a, dtype=np.uint8)
        b = bytes([0,0,8,a.ndim])+np.array(a.shape, '>i4').tobytes()+a.tobytes()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(b) if zipped else b)
    for part,n in (('train',6), ('t10k',4)):
        idx(d/f'{part}-images-idx3-ubyte{ext}', np.arange(n)[:,None,None]*np.ones((n,28,28)))
        idx(d/f'{part}-labels-idx1-ubyte{ext}', np.arange(n))

def test_torchvision(root):
    "Sets in miniature, one for each way that a class keeps its labels: `targets`, `y`, an image folder, `_labels`"
    save_mnist(root/'MNIST/raw', False, '')
    plant(root, *[f'caltech101/101_ObjectCategories/{c}/image_000{k}.jpg' for c in ('ant','bass','BACKGROUND_Google') for k in (1,2)])
    plant(root, *[f'eurosat/eurosat/2750/{c}/{k}.jpg' for c in ('Forest','River') for k in (1,2)])
    plant(root, *[f'dtd/dtd/images/{c}/{k}.jpg' for c in ('dotted','woven') for k in (1,2)])
    (root/'dtd/dtd/labels').mkdir(); (root/'dtd/dtd/labels/test1.txt').write_text('woven/1.jpg\ndotted/2.jpg\n')
    sets = {s:images(s) for s in ('mnist','caltech101','eurosat','dtd')}
    want = {'mnist':(4,[0,1,2,3],'RGB'), 'caltech101':(4,[0,0,1,1],'RGB'), 'eurosat':(4,[0,0,1,1],'RGB'), 'dtd':(2,[1,0],'RGB')}
    assert {s:(len(d), d.labels.tolist(), d[1][0].mode) for s,d in sets.items()}==want
    assert [d.split for d in sets.values()]==['test','all','all','test'] and sets['mnist'].threads
    own = images(tv.MNIST(str(root), train=False))
    assert (own.labels.tolist(),own.name,own.threads,off(own[2][0], sets['mnist'][2][0]))==([0,1,2,3], 'MNIST', False, 0)
    plant(root, 'mnist/test/nine/1.png'); shard(root/'fashion_mnist/test.parquet', range(2), [0,1])
    assert [images(s).classes for s in ('fashion_mnist','mnist')]==[['left','right'],['nine']]      # one's own wins

def test_debian_and_download(root, tmp_path, monkeypatch):
    save_mnist(tmp_path/'debian/fashion-mnist', True, '.gz')
    ds = images('fashion_mnist', 'train')
    assert (len(ds),ds.classes[ds[3][1]],ds[3][0].getpixel((0,0)))==(6, 'Dress', (3,3,3))
    with pytest.raises(FileNotFoundError, match='root.*cache.*download=True.*U1NB_DATA'): images('kmnist')
    with pytest.raises(FileNotFoundError, match='torchvision cannot download it'): images('imagenet')
    assert not (tmp_path/'cache').exists()                             # looking makes no folders
    monkeypatch.setattr(tv.KMNIST, 'download', lambda self: save_mnist(Path(self.raw_folder), False, ''))
    assert len(images('kmnist', download=True))==4 and (tmp_path/'cache/u1nb/KMNIST/raw').is_dir() and len(images('kmnist', 'train'))==6

def test_no_such_source(root, tmp_path):
    (tmp_path/'nothing').mkdir(); (tmp_path/'notes.jpg').write_text('not a picture')
    for source,match in {'cifar11':"no source 'cifar11'; did you mean 'cifar10'", 'astronaut':"no source 'astronaut'. Sources are", tmp_path/'nothing':'neither class folders with pictures nor parquet',
                         tmp_path/'notes.jpg':'no parquet file', tmp_path/'nowhere':'no source', '':'no source'}.items():
        with pytest.raises(ValueError, match=match): images(source)
    with pytest.raises(ValueError, match="'extra' of 'cifar10' is not there; labelled: 'train', 'test'"): images('cifar10', 'extra')
    with pytest.raises(ValueError, match='at least 1'): images('photos', n=0)
    with pytest.raises(FileNotFoundError, match='pip install nowhere'): room._shipped('nowhere', 'a.png')
    with pytest.raises(ValueError, match="not 'brown'"): noise(1, 8, 'brown')

def test_shifts():
    "A view depends on the seed, the photograph and its number only; offsets are uniform on the torus"
    from scipy.stats import kstest
    assert off(images('photos', n=14)[3][0], images('photos', n=140)[21][0])==0
    assert off(images('photos', n=14)[3][0], images('photos', n=14, seed=1)[3][0])>0
    assert off(noise(3, 32, 'pink')[2][0], noise(9, 32, 'pink')[2][0])==0
    d = np.array([room._offset((512,400), 0, 'view', 'astronaut', k) for k in range(500)])/(1024,800)
    assert min([kstest(d[:,k], 'uniform').pvalue for k in (0,1)] + [kstest(d.sum(1)%1, 'uniform').pvalue])>.001 and d.max()<1
    ds = images('photos', 'as_photographed')
    a,b = shifted(ds),shifted(ds)
    late = [b[i][0] for i in reversed(range(len(b)))][::-1]
    assert all(off(x, y)==0 for (x,_),y in zip(a, late)) and off(a[0][0], shifted(ds, seed=1)[0][0])>0
    assert (a.labels.tolist(),a.groups.tolist(),a.classes,a.name)==(ds.labels.tolist(), ds.groups.tolist(), ds.classes, ds.name)

def test_workers(tmp_path):
    "A set goes to loader workers, forked or spawned, and brings back the same pictures"
    shard(tmp_path/'table/train.parquet', range(5), [0,1,0,1,0])
    code = f"""
import pickle,numpy as np
from torch.utils.data import DataLoader
from u1nb.data import images, noise, planted, shifted, turned
if __name__=='__main__':
    for ds in (images({str(tmp_path/'table')!r}), images('photos', n=4), shifted(images('digits', n=4)), turned(images('digits', n=9).take(3), 'rotated'), noise(3, 32), planted().take(3), planted(ground='scrambled').take(3)):
        a = [(np.asarray(x).sum(),y) for x,y in ds]
        for how in ('fork','spawn') if ds.name=='table' else ('fork',):
            b = [(np.asarray(x).sum(),y) for x,y in DataLoader(ds, batch_size=None, num_workers=1, multiprocessing_context=how)]
            assert a==b, how
        assert a==[(np.asarray(x).sum(),y) for x,y in pickle.loads(pickle.dumps(ds))]
    print('same pictures')
"""
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (r.returncode,r.stdout)==(0, 'same pictures\n'), r.stderr

def test_sources():
    "A sampler's pictures, each once, by number; and what is no set of pictures"
    from torch.utils.data import DataLoader, SubsetRandomSampler
    import torch
    def small(img): return torch.from_numpy(np.array(img.resize((8,8)))).permute(2,0,1).float()/255
    odd = DataLoader(torch.arange(18.).view(6,1,1,3), sampler=SubsetRandomSampler([5,1,3]))
    assert Source(odd).numbers(0, 3)==[1,3,5] and Source([Image.new('L', (8,8), 9)], small).batch([0])[0].shape==(1,3,8,8)
    with pytest.raises(TypeError, match='no numbers of pictures'): Source(iter([1]))
    with pytest.raises(ValueError, match='no pictures'): Source([])
    with pytest.raises(TypeError, match='leave `transform` out'): Source(odd, small)
    with pytest.raises(ValueError, match='to one size'): Source([(scene,0), (scene.resize((9,9)),0)], lambda img: torch.zeros(1, *img.size)).batch([0,1])
    with pytest.raises(TypeError, match="no 'image'.*'x'"): Source([dict(x=1)]).batch([0])
    with pytest.raises(ValueError, match='C,H,W'): Source([(scene,0)], lambda img: torch.zeros(3)).batch([0])

OLD_PIXELS = ['4875e45a','c92d0901','e940e362','4460572c','1c50178d','32b81c65','45836d29','ff0a5d17']

def test_old_pictures():
    "Pixels of shifted, turned, planted and noise pictures are those they were"
    def digest(ds): return hashlib.sha256(b''.join(np.asarray(x).tobytes()+bytes([y]) for x,y in ds)).hexdigest()[:8]
    ds = images('digits', n=20)
    got = [digest(o) for o in (shifted(ds), shifted(images('photos', n=3), 2), turned(ds, 'mirrored'), turned(ds, 'rotated'), noise(3, 16), noise(3, 16, 'pink', 4), planted(4, 2, 1), images('spare', n=5))]
    assert got==OLD_PIXELS
    assert hashlib.sha256(planted(4, 2, 1).theta.tobytes()).hexdigest()[:8]=='bdb7a5e3'

def test_what_cannot_be_read_is_named_or_left_out(tmp_path):
    ds = images('digits', n=6)
    (tmp_path/'a').mkdir()
    for i in range(6): ds[i][0].save(tmp_path/f'a/{i}.png')
    (tmp_path/'a/3.png').write_bytes(b'no picture')
    with pytest.raises(BadPicture, match='3.png'): [p for p,_ in (images(tmp_path)[i] for i in range(6))]
    part = images(tmp_path, errors='skip')
    assert len(part)==5 and len(part.skipped)==1 and '3.png' in part.skipped[0]
    for i in range(5): part[i]

@pytest.mark.parametrize('kw,want', [({}, '6f72fb261813'), (dict(n_directions=4, n=2, seed=3), 'b52efe7d46bd')])
def test_crops_are_the_old_crops(kw, want):
    assert hashlib.sha256(b''.join(np.asarray(x).tobytes() for x,_ in planted(**kw))).hexdigest()[:12]==want

def test_composites():
    "The square alone is pasted, `contrast` of it; grounds differ by scene and seed, not by direction"
    grey,faint = planted(4, ground='grey'),planted(4, ground='grey', contrast=.25)
    assert len(grey)==28 and set(grey.groups)==set(planted().groups) and np.array_equal(grey.theta, planted(4).theta)
    a,b = (np.asarray(o[0][0], dtype=float)-128 for o in (grey, faint))
    assert a.shape==(224,224,3) and (a[80:144,142:206]!=0).any(-1).mean()>.9 and abs(b-.25*a).max()<1
    a[80:144,142:206] = 0
    assert not a.any()
    one,other,later = (np.asarray(planted(2, ground='scrambled', seed=s)[i][0]) for s,i in ((0,0),(0,1),(1,0)))
    assert (one==other)[:, 90:130].all() and (one!=later)[:,90:130].mean()>.5
    assert len(planted(4, 3, ground='scrambled', side=40, field=96))==84
    assert planted(ground='grey', field=96, side=40)[9][0].size==(96,96)
    for bad in (dict(ground='green'), dict(ground='grey', side=101), dict(ground='grey', contrast=0)):
        with pytest.raises(ValueError): planted(**bad)
