"""Workers, on which runs can work: what they are, and what they see."""

from vlm.models import Dataset
from vlm.runs import looking
from vlm.runs.looking import Seen as Seen


def look(*, workers: str, dataset: Dataset | None = None, model: str = "", device: str = "") -> list[Seen]:
    """Ask each worker whether it sees the images of a data set, the model and a GPU; loads nothing.

    Raises ``WorkersUnknown``, ``WorkersUnavailable``.
    """
    return looking.look(workers=workers, root=dataset.root if dataset is not None else "", model=model, device=device)
