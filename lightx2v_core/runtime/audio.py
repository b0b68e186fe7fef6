"""The audio of a source video in the result: copied if MP4 supports its codec, encoded as AAC otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: codecs that players expect in an MP4 file
_COPIED = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus"})


class Audio:
    """The first audio stream of ``source``, added to a container before its first packet is written."""

    def __init__(self, container: Any, source: Path) -> None:
        import av

        self._container = container
        self._source = av.open(str(source))
        self._input = next(iter(self._source.streams.audio), None)
        self._output: Any = None
        if self._input is None:
            return
        self._copied = self._input.codec_context.name in _COPIED
        if self._copied:
            self._output = container.add_stream_from_template(self._input)
        else:
            self._output = container.add_stream("aac", rate=self._input.codec_context.sample_rate)

    def write(self, seconds: float) -> None:
        """Write the audio of the first ``seconds``, the length of the video; the rest is dropped."""
        if self._output is None:
            return
        for packet in self._source.demux(self._input):
            if packet.pts is not None and packet.pts * packet.time_base >= seconds:
                break
            if self._copied:
                if packet.dts is not None:  # the last, empty packet only flushes decoders
                    packet.stream = self._output
                    self._container.mux(packet)
                continue
            frame: Any
            for frame in packet.decode():
                frame.pts = None
                self._container.mux(self._output.encode(frame))
        if not self._copied:
            self._container.mux(self._output.encode(None))

    def close(self) -> None:
        self._source.close()
