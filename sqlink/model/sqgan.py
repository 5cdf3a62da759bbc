"""SQ-GAN: a picture and its map as two sets of masked, vector-quantised tokens.

    TRANSMITTER                                            RECEIVER
     x ─ stem ─(+)─ E_x ─ z_x ─ SAMM(.|s) ─ VQ_x ─┐  link  ┌─ ADM_x ─ D_x(.| ŝ by SPADE) ─ x̂
     s ─ SemPE ┘                                  ├────────┤
     s ────────────── E_s ─ z_s ─ SAMM(.|s) ─ VQ_s ─┘       └─ ADM_s ─ D_s ─ ŝ ──────┘

Source: Pezone, Barbarossa, Caire, "SQ-GAN: semantic image communications using masked vector
quantization", arXiv 2502.09520.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.errors import ConfigError, WeightsError
from sqlink.model.base_drawing import BaseDrawing, RecentDrawings
from sqlink.model.config import ModelConfig
from sqlink.model.decoder import Decoder
from sqlink.model.demasker import AttentionDemasker
from sqlink.model.encoder import Encoder, SemanticPreEmbedding
from sqlink.model.fused import hold_weights
from sqlink.model.layout import channels_last
from sqlink.model.quantizer import VectorQuantizer
from sqlink.model.refinement import (
    Coefficients,
    LayerTokens,
    Quantiser,
    Refinement,
    RefinementConfig,
    without_cast,
)
from sqlink.model.samm import SemanticAwareMasking
from sqlink.model.searched_receiver import SearchedReceiver
from sqlink.model.spade import Cells

if TYPE_CHECKING:
    from sqlink.model.token_search import TokenSearch
    from sqlink.weights.manifest import Loaded

_AVERAGES = {f"{s}_quantizer.{n}" for s in ("image", "map") for n in ("counts", "sums")}
_MADE = "refinement.for_losses."


@dataclass(frozen=True)
class Analysis:
    """The transmitter's analysis of a batch: a code for every place, and its relevance.

    image_indices, map_indices: int64 [N, h, w]. image_scores, map_scores: float32 [N, h, w] in (0,
    1). finer: data for the refinement's layers, if the network has them.
    """

    image_indices: Tensor
    image_scores: Tensor
    map_indices: Tensor
    map_scores: Tensor
    finer: Finer | None = None


@dataclass(frozen=True)
class Finer:
    """What the refinement's coefficients are found from, once it is known which of the base's
    tokens are sent: `SQGAN.coefficients`.

    images: float32 [N, 3, 16 h, 16 w], padded. shares: float32 [N, L, 4 h, 4 w], of the classes and
    the null class.
    """

    images: Tensor
    shares: Tensor

    def row(self, number: int) -> Finer:
        """Return that of one picture, [1, ...], on the CPU."""
        rows = slice(number, number + 1)
        return Finer(self.images[rows].cpu(), self.shares[rows].cpu())

    def to(self, device: torch.device) -> Finer:
        """Return the same on a device."""
        return Finer(self.images.to(device), self.shares.to(device))


@dataclass(frozen=True)
class Searched:
    """What a search found for one picture.

    image_indices: int64 [1, h, w], -1 where a token is not sent. rounded: makes digits of both
    layers, int16 [1, k h, k w, D]; with a number above 0 it is harder to be rounded up, and there
    are fewer bits.
    """

    image_indices: Tensor
    rounded: Callable[[float], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Layer:
    """A layer of the refinement, at a step.

    digits: int16 [N, k h, k w, D], k 2 or 4. gains: float32 [N, 3, k h, k w], at least 0: the
    expected reduction of each of `sqlink.model.refinement.KINDS` by each token.
    """

    digits: Tensor
    gains: Tensor


class SQGAN(nn.Module):
    """Transmitter and receiver networks in one module; see the drawing above.

    in_bfloat16: whether inference computes convolutions and matrix products in bfloat16.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.refinement: Refinement | None = None
        self.in_bfloat16 = False
        labels = config.num_classes + 1
        groups = config.norm_groups
        self.sempe = SemanticPreEmbedding(
            labels, 128 if config.stem == 1 else 48, config.channels[0], config.stem
        )
        self.image_encoder = Encoder(3, config.channels, config.encoder_blocks, config.stem, groups)
        self.map_encoder = Encoder(
            labels,
            config.map_channels,
            config.map_blocks,
            config.stem,
            groups,
            config.map_stem_kernel,
        )
        self.image_samm = SemanticAwareMasking(
            config.channels[-1], config.samm_width, config.code_dim, labels, groups
        )
        self.map_samm = SemanticAwareMasking(
            config.map_channels[-1], config.samm_width, config.code_dim, labels, groups
        )
        self.image_quantizer = VectorQuantizer(config.image_codes, config.code_dim)
        self.map_quantizer = VectorQuantizer(config.map_codes, config.code_dim)
        self.image_demasker = AttentionDemasker(
            config.code_dim,
            config.channels[-1],
            config.demasker_blocks,
            groups,
            config.demask_start,
        )
        self.map_demasker = AttentionDemasker(
            config.code_dim,
            config.map_channels[-1],
            config.demasker_blocks,
            groups,
            config.demask_start,
        )
        self.map_decoder = Decoder(
            config.num_classes, config.map_channels, config.map_blocks, config.stem, groups
        )
        self.image_decoder = Decoder(
            3,
            config.channels,
            config.decoder_blocks,
            config.stem,
            groups,
            label_channels=labels,
            label_width=config.label_width,
            spade_hidden=config.spade_hidden,
            fine_width=config.fine_width,
            noise=config.noise,
            smooth=config.smooth,
            conv_first=config.conv_first,
        )

    def refine(self, config: RefinementConfig) -> Refinement:
        """Give the network refinement layers, untrained. Raises ConfigError if they do not fit."""
        if self.config.downsampling != 16 or self.config.stem > 4 or len(self.config.channels) < 2:
            raise ConfigError(f"model '{self.config.name}' has no places at 1/4 to be refined")
        self.refinement = Refinement(
            config,
            self.config.num_classes + 1,
            self.config.channels[1],
            self.config.channels[0],
        )
        return self.refinement

    def weights(self) -> dict[str, Tensor]:
        """Return the stored state of a trained network, without what is made of it and without the
        codebooks' averages.
        """
        state = self.state_dict()
        return {k: v for k, v in state.items() if k not in _AVERAGES and not k.startswith(_MADE)}

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Load what `weights` returned. Raises RuntimeError for tensors of another network."""
        missing, unknown = self.load_state_dict(state, strict=False)
        wrong = sorted(set(missing) - _AVERAGES) + unknown
        if wrong:
            raise RuntimeError(
                f"{len(wrong)} tensors are missing or unknown, {wrong[0]} among them"
            )
        for quantizer in (self.image_quantizer, self.map_quantizer):
            quantizer.adopt()
        if self.refinement is not None:
            self.refinement.merge()

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of tokens for a picture size."""
        return self.config.grid(height, width)

    def pad(self, images: Tensor, segmentation: Tensor) -> tuple[Tensor, Tensor]:
        """Pad both at the bottom and right, edges repeated, to whole latent vectors."""
        f = self.config.downsampling
        height, width = segmentation.shape[-2:]
        rows, columns = -height % f, -width % f
        if not rows and not columns:
            return images, segmentation
        padding = (0, columns, 0, rows)
        maps = F.pad(segmentation.unsqueeze(1).float(), padding, mode="replicate").squeeze(1)
        return F.pad(images, padding, mode="replicate"), maps.round().long()

    def encode_image(self, images: Tensor, segmentation: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images, [N, 3, H, W] in [0, 1], with segmentation, [N, H, W].

        H and W are multiples of f. Returns vectors [N, h, w, d] and scores [N, h, w].
        """
        return self._encode_image(images, self._cells(segmentation))

    def encode_map(self, segmentation: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the map stream as `encode_image` does."""
        return self._encode_map(self._cells(segmentation))

    def _cells(self, segmentation: Tensor) -> Cells:
        """Return the map in the form that the stems need."""
        return Cells.of(segmentation, self.config.num_classes, self.config.stem)

    def _encode_image(self, images: Tensor, cells: Cells) -> tuple[Tensor, Tensor]:
        pixels = F.pixel_unshuffle(2 * images - 1, self.config.stem)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        z = self.image_encoder(pixels, self.sempe(cells))
        vectors, scores = self.image_samm(z, self._seen_by_samm(cells))
        return vectors, scores

    def _encode_map(self, cells: Cells) -> tuple[Tensor, Tensor]:
        vectors, scores = self.map_samm(self.map_encoder(cells), self._seen_by_samm(cells))
        return vectors, scores

    def _seen_by_samm(self, cells: Cells) -> Tensor:
        """Return the share of each class in each place of the latent grid, [N, L, h, w]."""
        coarse = cells.shares(self.config.downsampling // self.config.stem)
        return torch.zeros_like(coarse) if "samm-map" in self.config.without else coarse

    def ranking(self, scores: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the values that rank places: SAMM's scores, or random numbers in the ablation.

        scores: [N, h, w]. Without a generator the random numbers are the same for all pictures of a
        size.
        """
        if "relevance" not in self.config.without:
            return scores
        if generator is not None:
            return torch.rand(scores.shape, generator=generator, device=scores.device)
        places = scores.shape[1:]
        drawn = torch.rand(places, generator=torch.Generator().manual_seed(7))
        return drawn.to(scores.device).expand_as(scores)

    def decode_map(self, codes: Tensor, received: Tensor) -> Tensor:
        """Decode codes, [N, h, w, d], to logits [N, classes, h*f, w*f]; received: bool [N,
        h, w].
        """
        logits: Tensor = self.map_decoder(self.map_demasker(codes, received))
        return logits

    def decode_image(
        self, codes: Tensor, received: Tensor, segmentation: Tensor, seed: int | Tensor = 0
    ) -> Tensor:
        """Decode as `decode_map` does, given the decoded map, int64 [N, h*f, w*f]; RGB, not
        clamped.

        seed: of the noise for textures, one for all, or int64 [k N] for k pictures of each, one
        after the other.
        """
        if "spade" in self.config.without:
            segmentation = torch.full_like(segmentation, self.config.num_classes)
        whole = self.image_demasker(codes, received)
        if isinstance(seed, Tensor) and seed.numel() > len(whole):
            times = seed.numel() // len(whole)
            whole = whole.repeat_interleave(times, 0)
            segmentation = segmentation.repeat_interleave(times, 0)
        out: Tensor = self.image_decoder(whole, segmentation, seed)
        return (out + 1) / 2

    def precision(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context that the networks of inference run in."""
        return torch.autocast(device.type, torch.bfloat16) if self.in_bfloat16 else nullcontext()

    @torch.inference_mode()
    def analyse(self, images: Tensor, segmentation: Tensor) -> Analysis:
        """Analyse images, float32 [N, 3, H, W] in [0, 1], with segmentation, int64 [N, H, W].

        H and W are at least 16.
        """
        padded, maps = self.pad(images, segmentation)
        cells = self._cells(maps)
        with self.precision(images.device):
            v_x, scores_x = self._encode_image(padded, cells)
            v_s, scores_s = self._encode_map(cells)
        image_indices = self.image_quantizer.nearest(v_x)
        map_indices = self.map_quantizer.nearest(v_s)
        return Analysis(
            image_indices,
            self.ranking(scores_x),
            map_indices,
            self.ranking(scores_s),
            Finer(padded, cells.shares(4 // self.config.stem)) if self.refinement else None,
        )

    @torch.inference_mode()
    def coefficients(
        self, finer: Finer, image_indices: Tensor, map_indices: Tensor
    ) -> Coefficients:
        """Return the refinement's coefficients: of what the picture that the receiver draws of the
        base's tokens at realism 0 does not show, but for a cast.

        image_indices, map_indices: int64 [N, h, w], -1 where a token is not sent.
        """
        assert self.refinement is not None
        base = self._drawn(image_indices, map_indices, 0)
        encoder = self.refinement.encoder
        images = without_cast(finer.images, base.picture)
        with self.precision(images.device):
            found: Coefficients = encoder(images, finer.shares, base.picture, base.coarse)
        return found

    @torch.inference_mode()
    def undrawn(self, finer: Finer) -> Coefficients:
        """Return about what `coefficients` does, in a twentieth of the time, as if the base drew
        the picture itself; errors are 0.
        """
        assert self.refinement is not None
        return self.refinement.encoder.without_errors(finer.images, finer.images)

    @torch.inference_mode()
    def layers(
        self, coefficients: Coefficients, step: int, quantiser: Quantiser | None = None
    ) -> tuple[Layer, Layer]:
        """Return the refinement's layers at 1/8 and 1/4, quantised with the step of index
        `step`.

        quantiser: see `RefinementEncoder.digits`.
        """
        assert self.refinement is not None
        size = self.refinement.config.steps[step]
        steps = torch.full((len(coefficients.z8),), size, device=coefficients.z8.device)
        found = self.refinement.encoder.digits(coefficients, steps, quantiser)
        return (
            Layer(found.digits8.permute(0, 2, 3, 1).round().to(torch.int16), found.gains8),
            Layer(found.digits4.permute(0, 2, 3, 1).round().to(torch.int16), found.gains4),
        )

    def searched(
        self,
        finer: Finer,
        image_indices: Tensor,
        map_indices: Tensor,
        coefficients: Coefficients,
        step: int,
        came: tuple[Tensor, Tensor],
        search: TokenSearch,
    ) -> Searched:
        """Search for tokens of one picture, quantised with the step of index `step`, that look more
        like the original at realism 1.

        image_indices, map_indices: int64 [1, h, w], -1 where a token is not sent; the map's stay.
        coefficients: for these. came: bool [1, k h, k w] of both layers, the tokens that are sent;
        digits of others stay as they are.
        """
        assert self.refinement is not None
        refinement, device = self.refinement, coefficients.z8.device
        with torch.inference_mode(False), torch.no_grad():  # a caller may be in that mode
            steps = torch.tensor([refinement.config.steps[step]], device=device)
            found = refinement.encoder.digits(coefficients, steps)
            sent = image_indices >= 0
            vectors = self.image_quantizer.lookup(image_indices.clone())
            receiver = SearchedReceiver(
                self,
                refinement,
                finer.images.clone(),
                sent,
                self._segmentation(map_indices).clone(),
                (came[0].clone(), came[1].clone()),
                steps,
            )
            tokens = search.tokens(receiver, finer.images, vectors, found)

        def rounded(harder: float) -> tuple[Tensor, Tensor]:
            first, second = (
                torch.where(there.unsqueeze(1), receiver.harder(value, harder), old)
                .permute(0, 2, 3, 1)
                .round()
                .to(torch.int16)
                for value, there, old in zip(
                    (tokens.rounded8, tokens.rounded4),
                    came,
                    (found.digits8, found.digits4),
                    strict=True,
                )
            )
            return first, second

        return Searched(torch.where(sent, tokens.indices, image_indices), rounded)

    def _segmentation(self, map_indices: Tensor) -> Tensor:
        """Return the map that the base's tokens draw, int64 [N, H, W]."""
        codes = self.map_quantizer.lookup(map_indices)
        with self.precision(codes.device):
            return self.map_decoder.likeliest(self.map_demasker(codes, map_indices >= 0))

    def _drawn(self, image_indices: Tensor, map_indices: Tensor, realism: int) -> BaseDrawing:
        """Return what the base's tokens draw at realism 0 or 1."""
        segmentation = self._segmentation(map_indices)
        grid = self.image_quantizer.lookup(image_indices)
        with self.precision(grid.device):
            grid = self.image_demasker(grid, image_indices >= 0)
            coarse, fine, out = self.image_decoder.with_features(grid, segmentation, 0, realism)
        return BaseDrawing(segmentation, coarse, fine, ((out.float() + 1) / 2).clamp(0, 1))

    def _refined(
        self,
        base: BaseDrawing,
        refinements: Sequence[tuple[Tensor, Tensor]],
        step: Tensor | None,
        realism: int,
        lossy: Tensor | None,
    ) -> Tensor:
        """Return the picture at realism 0 or 1, from what the base draws and the tokens of the
        refinement.

        lossy: bool [N], see `synthesise`.
        """
        assert self.refinement is not None
        n, _, height, width = base.picture.shape
        device = base.picture.device
        if not refinements:
            config = self.refinement.config
            refinements = [
                (
                    torch.zeros(
                        (n, height // side, width // side, values), dtype=torch.int16, device=device
                    ),
                    torch.zeros(
                        (n, height // side, width // side), dtype=torch.bool, device=device
                    ),
                )
                for side, values in ((8, config.values8), (4, config.values4))
            ]
        (digits8, came8), (digits4, came4) = refinements
        if step is None:
            step = torch.zeros(n, dtype=torch.int64, device=device)
        first, second = (part.permute(0, 3, 1, 2).float() for part in (digits8, digits4))
        sizes = torch.tensor(self.refinement.config.steps, device=device)[step]
        given = base, (first, came8, second, came4), sizes
        if lossy is None or lossy.all() or not lossy.any():
            return self._decoded(*given, realism, lossy is not None and bool(lossy.all()))
        out = torch.empty_like(base.picture)
        for own in (False, True):  # two decoders
            rows = torch.nonzero(lossy.to(device) == own)[:, 0]
            drawn = BaseDrawing(*(part[rows] for part in base))
            tokens = first[rows], came8[rows], second[rows], came4[rows]
            out[rows] = self._decoded(drawn, tokens, sizes[rows], realism, own)
        return out

    def _decoded(
        self, base: BaseDrawing, tokens: LayerTokens, steps: Tensor, realism: int, lossy: bool
    ) -> Tensor:
        """Return the picture at realism 0 or 1; steps: [N], values of a digit of 1."""
        assert self.refinement is not None
        drawn = base.coarse, base.fine, base.picture
        with self.precision(base.picture.device):
            return self.refinement.decoded(realism, drawn, tokens, steps, base.segmentation, lossy)

    @torch.inference_mode()
    def synthesise(
        self,
        image_indices: Tensor,
        map_indices: Tensor,
        height: int,
        width: int,
        refinements: Sequence[tuple[Tensor, Tensor]] = (),
        step: Tensor | None = None,
        realism: float = 1.0,
        recent: RecentDrawings | None = None,
        lossy: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode indices, int64 [N, h, w] each, -1 where masked or lost, to pictures of height x
        width.

        refinements: for both layers (k is 2 and 4), digits int16 [N, k h, k w, D] and bool [N, k h,
        k w], where they were received. step: int64 [N], index of the quantiser's step, 0 if None.
        realism: from 0, the most probable picture, to 1, the most natural one, for a network with
        refinement layers. recent: drawings of the base, used again and added to. lossy: bool [N],
        of which pictures packets were lost, whose losses are concealed; None: of none.

        Returns images float32 [N, 3, H, W] in [0, 1] and maps int64 [N, H, W].
        """
        if self.refinement is None:
            codes = self.map_quantizer.lookup(map_indices)
            segmentation = self.map_decoder.likeliest(self.map_demasker(codes, map_indices >= 0))
            seen = self.image_quantizer.lookup(image_indices), image_indices >= 0
            images = self.decode_image(*seen, segmentation)
        else:
            drawn = []
            for end in sorted({math.floor(realism), math.ceil(realism)}):
                base = partial(self._drawn, image_indices, map_indices, end)
                made = (
                    base() if recent is None else recent.of(image_indices, map_indices, end, base)
                )
                segmentation = made.segmentation
                drawn.append(self._refined(made, refinements, step, end, lossy))
            images = drawn[0] if len(drawn) == 1 else torch.lerp(drawn[0], drawn[1], realism)
        return (
            images.clamp(0, 1)[..., :height, :width].contiguous(),
            segmentation[..., :height, :width].contiguous(),
        )


def load_model(loaded: Loaded, title: str) -> SQGAN:
    """Build the networks that a weights file holds, for inference.

    title: the user's name of the weights, for errors. Raises WeightsError if the tensors do not fit
    the model that the file names.
    """
    try:
        model = SQGAN(ModelConfig.from_json(loaded.metadata["model"]))
        if "refinement" in loaded.metadata:
            model.refine(RefinementConfig.from_json(loaded.metadata["refinement"]))
        state = {k: v for k, v in loaded.tensors.items() if not k.startswith("tables.")}
        model.load_weights(state)
    except (ConfigError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"weights '{title}' do not fit the model they name: {reason}") from None
    channels_last(model.eval().requires_grad_(False))
    hold_weights(model)
    return model
