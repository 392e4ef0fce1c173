"""The judge of captioned scenes, and how far it can be trusted."""

from palinode.classifiers import scene_judge, storage
from palinode.classifiers.scene_pictures import Stream
from palinode.core.errors import Absent, UserError
from palinode.core.work import Work
from palinode.data import emoji
from palinode.data.scenes import EmojiCorpus
from palinode.params.stage_settings import TrainSceneJudge

ACCURACY = 0.99  # below this on held-out pictures the judge cannot be trusted
BATCHES = 16  # of 256


def run(work: Work) -> None:
    settings = work.settings(TrainSceneJudge)
    if settings.training is None:
        raise Absent(settings.reason)
    work.set_up_torch()
    data = work.inputs[1]
    corpus = EmojiCorpus.read(data, settings.corpus)
    others = emoji.read_drawings(data, "others.npy")
    key = (settings.root_seed, "judge", settings.name)
    with work.scratch() as scratch:
        judge = scene_judge.train(corpus, others, key, settings.training, scratch)
        test = scene_judge.accuracy(judge, Stream(corpus, others, 256, (*key, "test")), BATCHES)
        held = Stream(corpus, others, 1, key, held=True)
        unseen = scene_judge.unseen_accuracy(judge, held, 256 * BATCHES, key)
        print(f"{work.name}: {test}, unseen drawings: {unseen}")
        worst = min(test["concept"], test["style"])
        if worst < ACCURACY:
            raise UserError(f"{work.name}: accuracy {worst:.4f} is below {ACCURACY}")
        storage.save(judge, work.outputs[0], {"test": test, "unseen": unseen})
