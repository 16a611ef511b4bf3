"""From images to answers: what a run asks of a model, here or on other machines. It knows no Django and no store.

``loop`` of ``vlm.runs`` takes what comes out of here and keeps it. An :class:`~vlm.scoring.engine.Engine` is the seam between
the two: ``local`` asks the model of this process, ``crew`` shares the work out among workers.
"""
