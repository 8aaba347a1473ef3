"""The networks of Litecoin, Namecoin and Dogecoin.

The values are those of the nodes' chain parameters. What is not checked on these chains is in
`docs/chains.md`.
"""

from typing import Final

from virtualchain.bitcoin.parameters import COIN, EASIEST_TARGET, Network, scrypt

_HALF_A_WEEK: Final = 302_400
"""Seconds."""


def _genesis(header: str, coinbase: str) -> bytes:
    return bytes.fromhex(f"{header}01{coinbase}")


_LITECOIN_COINBASE: Final = (
    "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4804ffff001d01"
    "04404e592054696d65732030352f4f63742f32303131205374657665204a6f62732c204170706c65e280997320566973"
    "696f6e6172792c2044696573206174203536ffffffff0100f2052a010000004341040184710fa689ad5023690c80f3a4"
    "9c8f13f8d45b8c857fbcbc8bc4a8e4d3eb4b10f4d4604fa08dce601aaf0f470216fe1b51850b4acf21b179c45070ac7b"
    "03a9ac00000000"
)
_NAMECOIN_COINBASE: Final = (
    "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff5404ff7f001c02"
    "0a024b2e2e2e2063686f6f7365207768617420636f6d6573206e6578742e20204c69766573206f6620796f7572206f77"
    "6e2c206f7220612072657475726e20746f20636861696e732e202d2d2056ffffffff0100f2052a01000000434104b620"
    "369050cd899ffbbc4e8ee51e8c4534a855bb463439d63d235d4779685d8b6f4870a238cf365ac94fa13ef9a2a22cd99d"
    "0d5ee86dcabcafce36c7acf43ce5ac00000000"
)
_DOGECOIN_COINBASE: Final = (
    "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff1004ffff001d01"
    "04084e696e746f6e646fffffffff010058850c020000004341040184710fa689ad5023690c80f3a49c8f13f8d45b8c85"
    "7fbcbc8bc4a8e4d3eb4b10f4d4604fa08dce601aaf0f470216fe1b51850b4acf21b179c45070ac7b03a9ac00000000"
)
_BITCOIN_COINBASE: Final = (
    "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d01"
    "04455468652054696d65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f662073"
    "65636f6e64206261696c6f757420666f722062616e6b73ffffffff0100f2052a01000000434104678afdb0fe55482719"
    "67f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a"
    "4c702b6bf11d5fac00000000"
)

_LITECOIN: Final = (
    Network(
        name="litecoin",
        coin="Litecoin",
        unit="LTC",
        chain="main",
        message_start=bytes.fromhex("fbc0b6db"),
        genesis_hash="12a765e31ffd4059bada1e25190f6e98c99d9714d334efa41a195a7e7e04bfe2",
        genesis_block=_genesis(
            "010000000000000000000000000000000000000000000000000000000000000000000000d9ced4ed"
            "1130f7b7faad9be25323ffafa33232a17c3edf6cfd97bee6bafbdd97b9aa8e4ef0ff0f1ecd513f7c",
            _LITECOIN_COINBASE,
        ),
        rpc_port=9332,
        p2pkh=b"\x30",
        p2sh=b"\x32",
        p2sh_also_read=b"\x05",
        bech32_hrp="ltc",
        mweb_hrp="ltcmweb",
        subfolder="",
        proof_of_work=scrypt,
        largest_target=(1 << 236) - 1,
        segwit_block_id=1201536,
        coinbase_height_block_id=710000,
        period_seconds=_HALF_A_WEEK,
        whole_period_block_id=2017,
        spacing=150,
        confirmations=12,
        largest_amount=84_000_000 * COIN,
    ),
    Network(
        name="litecoin-testnet",
        coin="Litecoin",
        unit="LTC",
        chain="test",
        message_start=bytes.fromhex("fdd2c8f1"),
        genesis_hash="4966625a4b2851d9fdee139e56211a0d88575f59ed816ff5e6a63deb4e3e29a0",
        genesis_block=_genesis(
            "010000000000000000000000000000000000000000000000000000000000000000000000d9ced4ed"
            "1130f7b7faad9be25323ffafa33232a17c3edf6cfd97bee6bafbdd97f60ba158f0ff0f1ee1790400",
            _LITECOIN_COINBASE,
        ),
        rpc_port=19332,
        p2pkh=b"\x6f",
        p2sh=b"\x3a",
        p2sh_also_read=b"\xc4",
        bech32_hrp="tltc",
        mweb_hrp="tmweb",
        subfolder="testnet4",
        proof_of_work=scrypt,
        largest_target=(1 << 236) - 1,
        segwit_block_id=6048,
        coinbase_height_block_id=76,
        period_seconds=_HALF_A_WEEK,
        whole_period_block_id=2017,
        eases=True,
        spacing=150,
        confirmations=12,
        largest_amount=84_000_000 * COIN,
    ),
    Network(
        name="litecoin-regtest",
        coin="Litecoin",
        unit="LTC",
        chain="regtest",
        message_start=bytes.fromhex("fabfb5da"),
        genesis_hash="530827f38f93b43ed12af0b3ad25a288dc02ed74d6d7857862df51fc56c416f9",
        genesis_block=_genesis(
            "010000000000000000000000000000000000000000000000000000000000000000000000d9ced4ed"
            "1130f7b7faad9be25323ffafa33232a17c3edf6cfd97bee6bafbdd97dae5494dffff7f2000000000",
            _LITECOIN_COINBASE,
        ),
        rpc_port=19443,
        p2pkh=b"\x6f",
        p2sh=b"\x3a",
        p2sh_also_read=b"\xc4",
        bech32_hrp="rltc",
        mweb_hrp="tmweb",
        subfolder="regtest",
        proof_of_work=scrypt,
        largest_target=EASIEST_TARGET,
        segwit_block_id=0,
        coinbase_height_block_id=500,
        retargets=False,
        spacing=150,
        confirmations=12,
        largest_amount=84_000_000 * COIN,
    ),
)
_NAMECOIN: Final = (
    Network(
        name="namecoin",
        coin="Namecoin",
        unit="NMC",
        chain="main",
        message_start=bytes.fromhex("f9beb4fe"),
        genesis_hash="000000000062b72c5e2ceb45fbc8587e807c155b0da735e6483dfba2f0a9c770",
        genesis_block=_genesis(
            "0100000000000000000000000000000000000000000000000000000000000000000000000dcbd3e6"
            "f061215bf3b3383c8ce2ec201bc65acde32595449ac86890bd2dc641c133aa4dff7f001c92a11ea2",
            _NAMECOIN_COINBASE,
        ),
        rpc_port=8336,
        p2pkh=b"\x34",
        p2sh=b"\x0d",
        bech32_hrp="nc",
        subfolder="",
        largest_target=(1 << 224) - 1,
        segwit_block_id=475000,
        coinbase_height_block_id=250000,
        retargets=False,
        auxpow_chain_id=1,
        auxpow_block_id=19_200,
        confirmations=12,
    ),
    Network(
        name="namecoin-testnet",
        coin="Namecoin",
        unit="NMC",
        chain="test",
        message_start=bytes.fromhex("fabfb5fe"),
        genesis_hash="00000007199508e34a9ff81e6ec0c477a4cccff2a4767a8eee39c11db367b008",
        genesis_block=_genesis(
            "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd"
            "7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4adae5494df8ff071dff0bec16",
            _BITCOIN_COINBASE,
        ),
        rpc_port=18336,
        p2pkh=b"\x6f",
        p2sh=b"\xc4",
        bech32_hrp="tn",
        subfolder="testnet3",
        largest_target=(1 << 228) - 1,
        segwit_block_id=232000,
        coinbase_height_block_id=130000,
        retargets=False,
        auxpow_chain_id=1,
        strict_chain_id=False,
        confirmations=12,
    ),
    Network(
        name="namecoin-regtest",
        coin="Namecoin",
        unit="NMC",
        chain="regtest",
        message_start=bytes.fromhex("fabfb5da"),
        genesis_hash="0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
        genesis_block=_genesis(
            "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd"
            "7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4adae5494dffff7f2002000000",
            _BITCOIN_COINBASE,
        ),
        rpc_port=18443,
        p2pkh=b"\x6f",
        p2sh=b"\xc4",
        bech32_hrp="ncrt",
        subfolder="regtest",
        largest_target=EASIEST_TARGET,
        segwit_block_id=0,
        coinbase_height_block_id=1,
        retargets=False,
        auxpow_chain_id=1,
        confirmations=12,
    ),
)
_DOGECOIN: Final = (
    Network(
        name="dogecoin",
        coin="Dogecoin",
        unit="DOGE",
        chain="main",
        message_start=bytes.fromhex("c0c0c0c0"),
        genesis_hash="1a91e3dace36e2be3bf030a65679fe821aa1d6ef92e7c9902eb318182c355691",
        genesis_block=_genesis(
            "010000000000000000000000000000000000000000000000000000000000000000000000696ad20e"
            "2dd4365c7459b4a4a5af743d5e92c6da3229e6532cd605f6533f2a5b24a6a152f0ff0f1e67860100",
            _DOGECOIN_COINBASE,
        ),
        rpc_port=22555,
        p2pkh=b"\x1e",
        p2sh=b"\x16",
        subfolder="",
        proof_of_work=scrypt,
        largest_target=(1 << 236) - 1,
        segwit_block_id=None,
        coinbase_height_block_id=1034383,
        retargets=False,
        auxpow_chain_id=98,
        auxpow_block_id=371_337,
        legacy_versions=(1, 2),
        auxpow_index_is_zero=True,
        spacing=60,
        confirmations=20,
        largest_amount=10_000_000_000 * COIN,
    ),
    Network(
        name="dogecoin-testnet",
        coin="Dogecoin",
        unit="DOGE",
        chain="test",
        message_start=bytes.fromhex("fcc1b7dc"),
        genesis_hash="bb0a78264637406b6360aad926284d544d7049f45189db5664f3c4d07350559e",
        genesis_block=_genesis(
            "010000000000000000000000000000000000000000000000000000000000000000000000696ad20e"
            "2dd4365c7459b4a4a5af743d5e92c6da3229e6532cd605f6533f2a5bb9a7f052f0ff0f1ef7390f00",
            _DOGECOIN_COINBASE,
        ),
        rpc_port=44555,
        p2pkh=b"\x71",
        p2sh=b"\xc4",
        subfolder="testnet3",
        proof_of_work=scrypt,
        largest_target=(1 << 236) - 1,
        segwit_block_id=None,
        coinbase_height_block_id=708658,
        retargets=False,
        auxpow_chain_id=98,
        auxpow_block_id=158_100,
        strict_chain_id=False,
        legacy_versions=(1, 2),
        auxpow_index_is_zero=True,
        spacing=60,
        confirmations=20,
        largest_amount=10_000_000_000 * COIN,
    ),
    Network(
        name="dogecoin-regtest",
        coin="Dogecoin",
        unit="DOGE",
        chain="regtest",
        message_start=bytes.fromhex("fabfb5da"),
        genesis_hash="3d2160a3b5dc4a9d62e7e66a295f70313ac808440ef7400d6c0772171ce973a5",
        genesis_block=_genesis(
            "010000000000000000000000000000000000000000000000000000000000000000000000696ad20e"
            "2dd4365c7459b4a4a5af743d5e92c6da3229e6532cd605f6533f2a5bdae5494dffff7f2002000000",
            _DOGECOIN_COINBASE,
        ),
        rpc_port=18332,
        p2pkh=b"\x6f",
        p2sh=b"\xc4",
        subfolder="regtest",
        proof_of_work=scrypt,
        largest_target=EASIEST_TARGET,
        segwit_block_id=None,
        coinbase_height_block_id=100_000_000,
        retargets=False,
        auxpow_chain_id=98,
        auxpow_block_id=20,
        legacy_versions=(1, 2),
        auxpow_index_is_zero=True,
        spacing=1,
        confirmations=20,
        largest_amount=10_000_000_000 * COIN,
    ),
)

OTHER_COINS: Final = (*_LITECOIN, *_NAMECOIN, *_DOGECOIN)
"""Each coin's main network, its test network and its regtest, in this order."""
