"""Known bugs, reintroduced on purpose, to show that the simulator and the exhaustive search find them.

Importing this package registers all of them.
"""

from tests.sim.injected import bugs as bugs
from tests.sim.injected import clock_bugs as clock_bugs
from tests.sim.injected import machine_bugs as machine_bugs
from tests.sim.injected import order_bugs as order_bugs
from tests.sim.injected import recovery_bugs as recovery_bugs
from tests.sim.injected import session_bugs as session_bugs
from tests.sim.injected import transfer_bugs as transfer_bugs
