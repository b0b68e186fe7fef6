"""The contract of models, on the three families of Wan2.2."""

from lightx2v_wan22.contracts import A14bContract, AnimateContract, Ti2vContract


class TestA14b(A14bContract):
    use = "wan22/wan2.2-a14b"


class TestTi2v(Ti2vContract):
    use = "wan22/wan2.2-ti2v"


class TestAnimate(AnimateContract):
    use = "wan22/wan2.2-animate"
