"""One thread per test process: the models are tiny, and the suite runs in as many processes as there are cores.

"FACTS" in the tests is `../shared/paper/FACTS.md`: the ACDC paper and its code, number by number. Tests that read files
beside the clone skip where they are not there.
"""

import torch

torch.set_num_threads(1)
