"""Reports: one HTML file that opens from disk, made from a run's figures and small pictures.

``pictures`` keeps pictures while a run goes, ``runs`` reads what runs wrote and tells which can be
compared, ``evaluation`` says what stands on the page, ``page`` fills the templates.
"""

from stereo.evaluation.report.evaluation import compare, write_report
from stereo.evaluation.report.pictures import PictureKeeper

__all__ = ["PictureKeeper", "compare", "write_report"]
