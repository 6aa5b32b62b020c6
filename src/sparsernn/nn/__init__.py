"""Modules that are sparse by design, or returned by surgery."""

from .embedding import FrequencyEmbedding as FrequencyEmbedding
from .factorised import FactorisedGRU as FactorisedGRU
from .factorised import FactorisedLinear as FactorisedLinear
from .factorised import FactorisedLSTM as FactorisedLSTM
from .factorised import FactorisedRNN as FactorisedRNN
from .gated import GatedGRU as GatedGRU
from .gated import GatedLSTM as GatedLSTM
from .gated import GatedRNN as GatedRNN
from .graph import GraphGRU as GraphGRU
from .graph import GraphLSTM as GraphLSTM
from .graph import GraphRNN as GraphRNN
from .ragged import RaggedGRU as RaggedGRU
from .ragged import RaggedLSTM as RaggedLSTM
from .ragged import RaggedRNN as RaggedRNN
from .ragged import RaggedState as RaggedState
from .rhn import RHN as RHN
from .split import SplitGRU as SplitGRU
from .split import SplitLSTM as SplitLSTM
from .split import SplitRNN as SplitRNN
