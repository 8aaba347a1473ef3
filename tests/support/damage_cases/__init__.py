"""Ways to damage the deployment of `tests.support.damage`, each with the fault that it must be."""

from tests.support.damage_cases.log import LOG
from tests.support.damage_cases.rides import JUDGED_AGAIN, RIDES, WITH_CODE
from tests.support.damage_cases.rows import DEEP, ROWS
from tests.support.damage_cases.tape import TAPE

CASES = [*ROWS, *LOG, *TAPE]
"""What `verify` finds."""
__all__ = ["CASES", "DEEP", "JUDGED_AGAIN", "RIDES", "WITH_CODE"]
