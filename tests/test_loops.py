"attach_u1 in the four loops of 61_your_network: the loss falls, and the plain forward is what it was"
import warnings
import lightning, pytest, timm.data, timm.optim, torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments
from u1nb.loss import OneHotU1Loss, attach_u1, class_angles, detach_u1

D = load_digits()
X,Y = torch.tensor(D.images[:640]/8-1, dtype=torch.float32)[:,None],torch.tensor(D.target[:640])
LOSS = OneHotU1Loss(class_angles(10), .1)

def small():
    def block(i, o, s): return nn.Sequential(nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
    return nn.Sequential(block(1, 16, 1), block(16, 32, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
def of_timm(): return timm.create_model('test_resnet', num_classes=10, in_chans=1)
def of_hub():
    return ResNetForImageClassification(ResNetConfig(num_channels=1, embedding_size=16, hidden_sizes=[16,32],
        depths=[1,1], layer_type='basic', downsample_in_first_stage=False, num_labels=10))

def batches(): return DataLoader(TensorDataset(X, Y), 64, generator=torch.Generator().manual_seed(0), shuffle=True)
def step(net, opt, x, y):
    l = LOSS(*net(x, u1=True), y)
    opt.zero_grad(); l.backward(); opt.step()
    return l.item()

def torch_loop(net, tmp):
    opt = torch.optim.AdamW(net.parameters(), 1e-2)
    return [step(net, opt, *b) for _ in range(2) for b in batches()]

def timm_loop(net, tmp):
    opt,mix = timm.optim.create_optimizer_v2(net, 'adamw', 3e-3),timm.data.Mixup(.2, label_smoothing=0, num_classes=10)
    return [step(net, opt, *mix(x.clone(), y)) for _ in range(2) for x,y in batches()]     # soft targets

def lightning_loop(net, tmp):
    losses = []
    class Lit(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net,self.loss = net,LOSS
        def training_step(self, batch, i):
            l = self.loss(*self.net(batch[0], u1=True), batch[1])
            losses.append(l.item())
            return l
        def configure_optimizers(self): return torch.optim.AdamW(self.parameters(), 1e-2)
    quiet = dict.fromkeys(('logger','enable_checkpointing','enable_progress_bar','enable_model_summary'), False)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        lightning.Trainer(max_epochs=2, accelerator='cpu', devices=1, **quiet).fit(Lit(), batches())
    return losses

class U1Trainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        l = LOSS(*model(inputs['pixel_values'], u1=True), inputs['labels'])
        self.losses.append(l.item())
        return l
def trainer(net, tmp, **how):
    items = [dict(pixel_values=x, labels=y) for x,y in zip(X, Y.tolist())]
    args = TrainingArguments(str(tmp), per_device_train_batch_size=64, num_train_epochs=2, learning_rate=1e-2,
                             use_cpu=True, report_to='none', save_strategy='no', disable_tqdm=True, **how)
    t = U1Trainer(net, args, train_dataset=items)
    t.losses = []
    return t
def trainer_loop(net, tmp):
    t = trainer(net, tmp)
    assert t.label_names==['labels']                 # read from the signature of the network's forward
    t.train()
    return t.losses

LOOPS = dict(torch=(small, torch_loop), timm=(of_timm, timm_loop), lightning=(small, lightning_loop), trainer=(of_hub, trainer_loop))

@pytest.mark.parametrize('name', LOOPS)
def test_loop(name, tmp_path):
    make,loop = LOOPS[name]
    torch.manual_seed(0)
    net,some = make().eval(),X[:8]
    def plain():
        out = net.eval()(some)
        return (out['logits'] if isinstance(out, dict) else out).detach()
    want,cls,keys = plain(),type(net),list(net.state_dict())
    assert torch.equal(plain(), want) and torch.equal(attach_u1(net, size=8)(some, u1=True)[0], want)
    assert torch.equal(plain(), want) and list(net.state_dict())==keys+['u1.weight','u1.bias']
    losses = loop(net.train(), tmp_path)
    assert len(losses)==20 and sum(losses[-5:])<.8*sum(losses[:5])
    want = plain()
    assert torch.equal(net(some, u1=True)[0], want)
    detach_u1(net)
    assert type(net) is cls and torch.equal(plain(), want)

def test_gradient_accumulation(tmp_path):
    "A loss that is a mean is divided by the steps of an accumulation where the network says so"
    net = attach_u1(of_hub(), size=8)
    net.accepts_loss_kwargs = False
    t = trainer(net, tmp_path, gradient_accumulation_steps=2)
    assert not t.model_accepts_loss_kwargs
