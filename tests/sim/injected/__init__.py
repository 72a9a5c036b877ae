"""Known bugs, put back on purpose: the proof that the simulator and the exhaustive search see what is wrong.

Importing this makes all of them known.
"""

from tests.sim.injected import bugs as bugs
from tests.sim.injected import clock_bugs as clock_bugs
from tests.sim.injected import machine_bugs as machine_bugs
from tests.sim.injected import order_bugs as order_bugs
from tests.sim.injected import recovery_bugs as recovery_bugs
from tests.sim.injected import session_bugs as session_bugs
from tests.sim.injected import transfer_bugs as transfer_bugs
