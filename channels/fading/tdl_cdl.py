"""3GPP multipath channels with OFDM: TDL and CDL of TR 38.901, clause 7.7, by Sionna.

    S symbols ── slots of 14 OFDM symbols, pilots among them ──> x ── H ──> y = H x + n
    S symbols, noise variance of each <── LMMSE equaliser <── H, or its estimate from the pilots

One slot is one resource grid: 14 OFDM symbols by `subcarriers`. A packet takes as many slots as it
needs, and padding fills the last one. The impulse response is shorter than the cyclic prefix,
constant over an OFDM symbol, and changes from symbol to symbol: there is no interference between
symbols or subcarriers. The cyclic prefix does not count as channel uses. SNR is the mean Es/N0 of a
resource element at one receive antenna, with E|H|^2 = 1 from each transmit antenna; two streams
have half of the energy each.

Impulse responses come from a bank that Sionna draws in fixed chunks, each seeded by its number. The
link's random numbers select a realisation for each packet, so results do not depend on batch and
order.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from channels.config.checks import choice, integer, number
from channels.errors import ChannelError, ConfigError
from channels.fading.base import Observation, Timing, register
from channels.fec.ldpc import in_chunks
from channels.fec.sionna_isolation import untouched_random_state
from channels.random import Randomness

SYMBOLS_PER_SLOT = 14
"""OFDM symbols of a slot with normal cyclic prefix (TS 38.211, clause 4.3.2)."""

MOST_SLOTS = 32
"""The longest packet, in slots."""

_PREFIX = 1 / 14
"""Mean ratio of the normal cyclic prefix to the symbol without it: 14 symbols last 15 / spacing."""

_LIGHT_MPS = 299_792_458.0

_ANTENNAS = {"1x1": (1, 1), "1x2": (1, 2), "2x2": (2, 2)}

_CHUNK = 64
"""Realisations that are drawn from one seed."""

_BANK_BYTES = 256 << 20
"""Most bytes of realisations in memory, over all channels; others are drawn again when needed."""

_ELEMENTS_CPU = 1 << 15
_ELEMENTS_CUDA = 1 << 19


@dataclass(frozen=True)
class Multipath:
    """The impulse responses of a profile of TR 38.901 with t transmit and r receive antennas.

    profile: "tdl" or "cdl". model: "A" to "E". symbol_rate_hz: OFDM symbols per second.
    """

    profile: str
    model: str
    delay_spread_s: float
    carrier_frequency_hz: float
    speed_mps: float
    transmitters: int
    receivers: int
    symbol_rate_hz: float

    def take(self, numbers: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Return the realisations of some numbers over `steps` OFDM symbols.

        numbers: int64 [R], from 0. Returns the paths' coefficients, complex64 [R, 1, r, 1, t,
        paths, steps], and their delays in seconds, float32 [1, 1, 1, paths], on the CPU.
        """
        numbers = numbers.cpu()
        chunks, places = (numbers // _CHUNK).unique(return_inverse=True)
        taps, delays = _chunk(self, int(chunks[0]), steps)
        found = taps.new_empty(len(numbers), *taps.shape[1:])
        for place, chunk in enumerate(chunks.tolist()):
            rows = (places == place).nonzero()[:, 0]
            taps, delays = _chunk(self, chunk, steps)
            found[rows] = taps[numbers[rows] % _CHUNK]
        return found, delays


_kept: OrderedDict[tuple[Multipath, int, int], tuple[Tensor, Tensor]] = OrderedDict()


def _chunk(multipath: Multipath, chunk: int, steps: int) -> tuple[Tensor, Tensor]:
    """Return chunk number `chunk` of the bank."""
    key = (multipath, chunk, steps)
    if key not in _kept:
        _kept[key] = _draw(multipath, chunk, steps)
    _kept.move_to_end(key)
    while len(_kept) > 1 and sum(taps.nbytes for taps, _ in _kept.values()) > _BANK_BYTES:
        _kept.popitem(last=False)
    return _kept[key]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed Sionna on the CPU for the block, and restore its generator and all others afterwards."""
    with untouched_random_state():
        from sionna.phy import config

        generator = config.torch_rng("cpu")
        before = generator.get_state()
        generator.manual_seed(seed)
        try:
            yield
        finally:
            generator.set_state(before)


def _draw(multipath: Multipath, chunk: int, steps: int) -> tuple[Tensor, Tensor]:
    """Draw one chunk with Sionna, always on the CPU, so that it is equal on all devices."""
    with _seeded(chunk):
        taps, delays = _model(multipath)(_CHUNK, steps, multipath.symbol_rate_hz)
    return taps, delays[:1]


@lru_cache(maxsize=8)
def _model(multipath: Multipath) -> Any:
    """Build Sionna's channel model; the base station sends, the user moves in a random direction.

    TDL antennas fade independently. CDL antennas are vertical, omnidirectional and half a
    wavelength apart.
    """
    from sionna.phy.channel.tr38901 import CDL, TDL, PanelArray

    common: dict[str, Any] = {
        "min_speed": multipath.speed_mps,
        "max_speed": multipath.speed_mps,
        "precision": "single",
        "device": "cpu",
    }
    if multipath.profile == "tdl":
        return TDL(
            multipath.model,
            multipath.delay_spread_s,
            multipath.carrier_frequency_hz,
            num_tx_ant=multipath.transmitters,
            num_rx_ant=multipath.receivers,
            **common,
        )
    base_station, user = (
        PanelArray(
            num_rows_per_panel=1,
            num_cols_per_panel=antennas,
            polarization="single",
            polarization_type="V",
            antenna_pattern="omni",
            carrier_frequency=multipath.carrier_frequency_hz,
            precision="single",
            device="cpu",
        )
        for antennas in (multipath.transmitters, multipath.receivers)
    )
    return CDL(
        multipath.model,
        multipath.delay_spread_s,
        multipath.carrier_frequency_hz,
        ut_array=user,
        bs_array=base_station,
        direction="downlink",
        **common,
    )


@dataclass(frozen=True)
class Grid:
    """One slot of `subcarriers` by SYMBOLS_PER_SLOT resource elements.

    pilot_symbols: the OFDM symbols whose elements are all pilots.
    """

    subcarriers: int
    spacing_hz: float
    pilot_symbols: tuple[int, ...]
    streams: int

    @property
    def elements(self) -> int:
        return self.subcarriers * SYMBOLS_PER_SLOT

    @property
    def pilots(self) -> int:
        """Elements of pilots; with two streams, each stream has every second one."""
        return self.subcarriers * len(self.pilot_symbols)

    @property
    def capacity(self) -> int:
        """Data symbols of a slot, over all streams."""
        return (self.elements - self.pilots) * self.streams


class _Modem:
    """Sionna's grid mapper, channel, estimator and equaliser on one device."""

    def __init__(self, grid: Grid, device: str) -> None:
        self.grid = grid
        with _seeded(0):
            import numpy as np
            from sionna.phy.channel import ApplyOFDMChannel, subcarrier_frequencies
            from sionna.phy.mimo import StreamManagement
            from sionna.phy.ofdm import (
                LinearInterpolator,
                LMMSEEqualizer,
                LSChannelEstimator,
                PilotPattern,
                ResourceGrid,
                ResourceGridMapper,
            )

            # In single precision there would be no noise at all on the symbols at high SNR.
            kind: dict[str, Any] = {"precision": "double", "device": device}
            size = (SYMBOLS_PER_SLOT, grid.subcarriers, grid.spacing_hz, 1, grid.streams)
            drawn = ResourceGrid(
                *size,
                pilot_pattern="kronecker",
                pilot_ofdm_symbol_indices=list(grid.pilot_symbols),
                precision="double",
                device="cpu",
            ).pilot_pattern
            pattern = PilotPattern(drawn.mask, drawn.pilots, **kind)
            resources = ResourceGrid(*size, pilot_pattern=pattern, **kind)
            interpolator = LinearInterpolator(pattern, **kind)
            streams = StreamManagement(np.array([[1]]), grid.streams)
            self._map = ResourceGridMapper(resources, **kind)
            self._pass = ApplyOFDMChannel(**kind)
            self._estimate = LSChannelEstimator(resources, interpolator=interpolator, **kind)
            self._equalise = LMMSEEqualizer(resources, streams, **kind)
            self._frequencies = subcarrier_frequencies(
                grid.subcarriers, grid.spacing_hz, precision="single", device=device
            )
            self._error = _error_per_noise(interpolator, pattern.pilots)

    def response(self, taps: Tensor, delays: Tensor) -> Tensor:
        """Return H of R realisations over G slots, complex128 [R G, 1, r, 1, t, 14, F].

        E|H|^2 = 1/t. taps, delays: as `Multipath.take` returns them.
        """
        from sionna.phy.channel import cir_to_ofdm_channel

        device = self._frequencies.device
        h = cir_to_ofdm_channel(self._frequencies, taps.to(device), delays.to(device))
        h = h.unflatten(5, (-1, SYMBOLS_PER_SLOT)).movedim(5, 1).flatten(0, 1)
        scaled: Tensor = h.to(torch.complex128) / math.sqrt(taps.shape[4])
        return scaled

    def transceive(
        self, symbols: Tensor, h: Tensor, noise: Tensor, noise_power: Tensor, estimated: bool
    ) -> tuple[Tensor, Tensor]:
        """Send slots; return the equalised symbols and the noise variance of each.

        symbols: complex [B, capacity]; h: [B, 1, r, 1, t, 14, F]; noise: complex128 [B, 1, r, 14,
        F] of variance noise_power, float64 [B]. Consecutive symbols belong to the streams of one
        element. estimated: the receiver estimates h from the pilots. The variance then contains the
        variance of the noise in the estimate, but not the interpolation error of a channel that
        varies.
        """
        streams = symbols.unflatten(1, (-1, self.grid.streams)).transpose(1, 2)[:, None]
        received = self._pass(self._map(streams), h) + noise
        error = torch.zeros((), dtype=torch.float64, device=h.device)
        if estimated:
            h, _ = self._estimate(received, noise_power)
            error = self._error * noise_power.reshape(-1, *[1] * 6)
        seen, variance = self._equalise(received, h, error, noise_power)
        return seen[:, 0].mT.flatten(1), variance[:, 0].mT.flatten(1)


def _error_per_noise(interpolator: Any, pilots: Tensor) -> Tensor:
    """Return the variance of each estimate per unit of noise on the pilots, [1,1,1,1,streams,14,F].

    Estimates are linear in the received pilots, h' = sum_i w_i y_i / p_i, so the variance is the
    sum of |w_i|^2 / |p_i|^2. The weights are the interpolator's responses to one pilot at a time.
    """
    count = pilots.shape[-1]
    one = torch.eye(count, dtype=pilots.dtype, device=pilots.device)
    one = one[:, None, None, None, None].expand(-1, 1, 1, *pilots.shape[:2], -1)
    weights, _ = interpolator(one, one.real)  # [count, 1, 1, 1, streams, 14, F]
    energy = pilots.abs().square()[0].mT[:, None, None, None, :, None, None]
    error: Tensor = torch.where(energy > 0, weights.abs().square() / energy, 0).sum(0, keepdim=True)
    return error


@lru_cache(maxsize=16)
def _modem(grid: Grid, device: str) -> _Modem:
    """Return the modem of a grid on a device such as "cpu" or "cuda:0", cached."""
    return _Modem(grid, device)


def _pilot_symbols(owner: str, value: object) -> tuple[int, ...]:
    """Return `value` as distinct numbers of OFDM symbols, not all. Raises ConfigError."""
    known = range(SYMBOLS_PER_SLOT)
    if (
        isinstance(value, str)
        or not isinstance(value, Sequence)
        or not all(isinstance(i, int) and not isinstance(i, bool) and i in known for i in value)
        or not 0 < len(value) == len(set(value)) < SYMBOLS_PER_SLOT
    ):
        raise ConfigError(
            f"{owner}: pilot_symbols={value!r} must be 1 to {SYMBOLS_PER_SLOT - 1} different "
            f"integers from 0 to {SYMBOLS_PER_SLOT - 1}, such as [2, 11]"
        )
    return tuple(sorted(value))


class _Ofdm:
    """A base class of TDL and CDL."""

    name = "ofdm"

    def __init__(
        self,
        model: str = "A",
        delay_spread_ns: float = 100.0,
        carrier_frequency_hz: float = 3.5e9,
        speed_mps: float = 1.0,
        subcarriers: int = 72,
        subcarrier_spacing_hz: float = 15e3,
        pilot_symbols: Sequence[int] = (2, 11),
        csi: str = "perfect",
        antennas: str = "1x1",
        coherence: str = "packet",
        realisations: int = 4096,
    ) -> None:
        self.model = choice(self.name, "model", model, ("a", "b", "c", "d", "e")).upper()
        spacing = number(self.name, "subcarrier_spacing_hz", subcarrier_spacing_hz, 15e3, 960e3)
        carrier = number(self.name, "carrier_frequency_hz", carrier_frequency_hz, 0.5e9, 100e9)
        # Most paths are shorter than 7 delay spreads, which must fit into the cyclic prefix.
        longest_ns = round(1e9 * _PREFIX / spacing / 7, 1)
        self.delay_spread_ns = number(self.name, "delay_spread_ns", delay_spread_ns, 0, longest_ns)
        # A Doppler shift of a tenth of the spacing causes crosstalk of about -15 dB.
        fastest = round(0.1 * spacing * _LIGHT_MPS / carrier, 2)
        self.speed_mps = number(self.name, "speed_mps", speed_mps, 0, fastest)
        self.csi = choice(self.name, "csi", csi, ("perfect", "estimated"))
        self.antennas = choice(self.name, "antennas", antennas, _ANTENNAS)
        self.coherence = choice(self.name, "coherence", coherence, ("packet", "picture"))
        self.realisations = integer(self.name, "realisations", realisations, 1, 1 << 20)
        transmitters, receivers = _ANTENNAS[self.antennas]
        self.grid = Grid(
            integer(self.name, "subcarriers", subcarriers, 12, 3300),
            spacing,
            _pilot_symbols(self.name, pilot_symbols),
            transmitters,
        )
        if self.grid.subcarriers % transmitters:
            raise ConfigError(
                f"{self.name}: subcarriers={subcarriers} must be even, from 12 to 3300, where "
                f"antennas=2x2"
            )
        self.multipath = Multipath(
            self.name,
            self.model,
            self.delay_spread_ns * 1e-9,
            carrier,
            self.speed_mps,
            transmitters,
            receivers,
            spacing / (1 + _PREFIX),
        )

    @property
    def streams(self) -> int:
        """Data symbols that one resource element carries at once."""
        return self.grid.streams

    def occupied(self, symbols: int) -> tuple[int, int]:
        """Return the resource elements of the slots for `symbols` data symbols, and their pilots.

        The cyclic prefix is not counted. Raises ChannelError for more than MOST_SLOTS slots.
        """
        slots = self._slots(symbols)
        return slots * self.grid.elements, slots * self.grid.pilots

    def _slots(self, symbols: int) -> int:
        slots = -(-symbols // self.grid.capacity)
        if slots > MOST_SLOTS:
            raise ChannelError(
                f"{self.name}: a packet of {symbols} symbols takes {slots} slots, at most "
                f"{MOST_SLOTS} are allowed: raise subcarriers={self.grid.subcarriers}"
            )
        return slots

    def apply(
        self, symbols: Tensor, snr_db: Tensor, randomness: Randomness, timing: Timing
    ) -> Observation:
        """Send each packet over slots of its own; see `SymbolChannel.apply`.

        `Observation.gain` is the mean of |H|^2 over the elements and the pairs of antennas. Raises
        ChannelError if a packet needs more than MOST_SLOTS slots.
        """
        links, packets, length = symbols.shape
        count, slots = links * packets, self._slots(length)
        if not symbols.numel():
            noiseless = torch.ones_like(symbols.real)
            return Observation(symbols, noiseless, noiseless.new_ones(links, packets))
        grid, device = self.grid, symbols.device
        receivers = self.multipath.receivers
        modem = _modem(grid, str(device))
        keys = randomness.child(timing.draws("noise")).split(packets).keys
        numbers = self._numbers(randomness, timing).flatten()
        power = torch.pow(10.0, -snr_db / 10).repeat_interleave(packets)

        def send(
            rows: Tensor, power: Tensor, keys: Tensor, numbers: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            h = modem.response(*self.multipath.take(numbers, slots * SYMBOLS_PER_SLOT))
            data = rows.new_full((len(rows), slots * grid.capacity), _PADDING)
            data[:, :length] = rows
            each = power.repeat_interleave(slots)  # [R G]
            noise = Randomness(keys).complex_normal(slots * receivers * grid.elements)
            noise = noise.reshape(-1, 1, receivers, SYMBOLS_PER_SLOT, grid.subcarriers)
            seen, variance = modem.transceive(
                data.reshape(-1, grid.capacity),
                h,
                torch.sqrt(each)[:, None, None, None, None] * noise,
                each,
                self.csi == "estimated",
            )
            gain = h.abs().square().sum(dim=4).reshape(len(rows), -1).mean(dim=1)
            return (
                seen.reshape(len(rows), -1)[:, :length].to(torch.complex64),
                variance.reshape(len(rows), -1)[:, :length].to(torch.float32),
                gain.to(torch.float32),
            )

        budget = _ELEMENTS_CPU if device.type == "cpu" else _ELEMENTS_CUDA
        size = max(1, budget // (slots * grid.elements * receivers))
        order = numbers.argsort(stable=True)  # realisations of one chunk together
        rows = (symbols.reshape(count, length), power, keys, numbers)
        seen, variance, gain = in_chunks(send, size, *(row[order] for row in rows))
        back = order.argsort()
        return Observation(
            seen[back].reshape(symbols.shape),
            variance[back].reshape(symbols.shape),
            gain[back].reshape(links, packets),
        )

    def _numbers(self, randomness: Randomness, timing: Timing) -> Tensor:
        """Return the number of each packet's realisation, int64 [N, P]."""
        if self.coherence == "packet":
            streams = randomness.child(timing.draws("fading"))
            draws = streams.uniform(timing.group.shape[1])
        else:
            draws = randomness.child("fading").uniform(int(timing.group.max()) + 1)
            draws = draws.gather(1, timing.group)
        return (draws * self.realisations).to(torch.int64)


_PADDING = complex(math.sqrt(0.5), math.sqrt(0.5))
"""The symbol that fills the last slot."""


@register("tdl")
class Tdl(_Ofdm):
    """Tapped delay line TDL-A to TDL-E (TR 38.901, clause 7.7.2) with OFDM.

    model: "A", "B", "C" (without line of sight), "D", "E" (with line of sight).
    delay_spread_ns: RMS, from 0 to 1/98 of a symbol: 680 ns at 15 kHz, 340 ns at 30 kHz.
    carrier_frequency_hz: 0.5e9 to 100e9.
    speed_mps: speed of the user, from 0 to a Doppler shift of a tenth of the spacing, which is
        128 m/s at 3.5 GHz and 15 kHz.
    subcarriers: 12 to 3300; subcarrier_spacing_hz: 15e3 to 960e3.
    pilot_symbols: the OFDM symbols of a slot that are pilots, on every subcarrier (0 to 13); they
        are sent, and counted, whatever the csi.
    csi: "perfect", the receiver knows H; "estimated", least squares at the pilots with linear
        interpolation and extrapolation; the error's variance is added to the noise variance.
    antennas: transmit x receive. "1x1"; "1x2", the receiver combines both antennas; "2x2", two
        streams with the data symbols in turn, separated by the LMMSE equaliser. Antennas fade
        independently.
    coherence: "packet", another realisation for each packet and attempt; "picture", one for all
        packets of a picture. Each packet starts at the beginning of its realisation; at speed 0 a
        realisation is constant.
    realisations: number of realisations in the bank, 1 to 1048576.

    The equaliser gives the noise variance of each symbol. The channel is `Piloted`, not `Flat`.
    More is in the module's docstring.
    """

    name = "tdl"


@register("cdl")
class Cdl(_Ofdm):
    """Clustered delay line CDL-A to CDL-E (TR 38.901, clause 7.7.1) with OFDM, downlink.

    The parameters are those of `tdl`. Antennas are vertical, omnidirectional and half a wavelength
    apart; the angles of the model correlate their fading. The user moves in a random direction.
    """

    name = "cdl"
