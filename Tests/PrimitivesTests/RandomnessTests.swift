import Primitives
import Testing

@Suite("Seeded randomness")
struct SplitMix64Tests {
    /// From the reference implementation (https://prng.di.unimi.it/splitmix64.c).
    @Test(
        "the sequence is that of the reference implementation",
        arguments: [
            (0, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]),
            (
                1_234_567,
                [
                    6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423,
                    4_593_380_528_125_082_431, 16_408_922_859_458_223_821,
                ]
            ),
            (.max, [0xe4d9_7177_1b65_2c20, 0xe99f_f867_dbf6_82c9]),
        ] as [(UInt64, [UInt64])])
    func matchesReference(seed: UInt64, expected: [UInt64]) {
        var random = SplitMix64(seed: seed)
        #expect(expected.map { _ in random.next() } == expected)
    }

    @Test("a copy replays what follows", arguments: seeds)
    func replays(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        _ = random.next()
        var copy = random
        for _ in 0..<100 {
            let (drawn, replayed) = (random.next(), copy.next())
            #expect(drawn == replayed, "seed \(seed)")
        }
    }

    @Test("every input bit of the mixer changes about half of the output bits", arguments: seeds)
    func mixes(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        for bit in 0..<64 {
            var changed = 0
            for _ in 0..<256 {
                let value = random.next()
                changed += (mix64(value) ^ mix64(value ^ 1 << UInt64(bit))).nonzeroBitCount
            }
            // The mean of 256 draws of 64 coins is 32 with a standard deviation of 0.25: 4 away never happens by chance.
            #expect(abs(Double(changed) / 256 - 32) < 4, "bit \(bit), seed \(seed)")
        }
    }
}

@Suite("Stable hashes")
struct StableHashTests {
    /// Computed apart from this code: FNV-1a as its authors publish it, then the finalizer of SplitMix64. Nodes of
    /// different versions must agree on them, because they decide which node probes a backend.
    @Test(
        "the values never change",
        arguments: [
            ("", 0xf52a_15e9_a9b5_e89b, 0x4e43_d7f8_2e03_7c16),
            ("a", 0x02c0_bdbf_4814_20f8, 0x31f9_7d58_0755_669e),
            ("foobar", 0x404d_a9e3_b740_78c2, 0x1a2c_bd33_17d2_033a),
            ("node-1|http://10.0.0.1:8080", 0xfb2f_a823_3875_d85b, 0xdcae_3439_8fd2_68a7),
            ("\0", 0x25fc_6dd3_6ce0_4b20, 0x74f1_91b6_94d3_2786),
            ("\0\0", 0x7bc2_1004_6bd6_16cc, 0xd91a_7d42_13b0_fa93),
            ("\u{fc}", 0x772d_5ffd_bcb8_f81a, 0x5d3e_5167_33cf_3e0a),
        ] as [(String, UInt64, UInt64)])
    func isStable(text: String, unseeded: UInt64, seededWith42: UInt64) {
        #expect(stableHash(text) == unseeded)
        #expect(stableHash(text, seed: 42) == seededWith42)
    }

    @Test(
        "text hashes as its UTF-8, however it is stored and normalized",
        arguments: ["", "x", "caf\u{e9}", "cafe\u{301}"])
    func hashesBytes(text: String) {
        let bytes = Array(text.utf8)
        #expect(stableHash(text, seed: 7) == stableHash(bytes.span, seed: 7))
    }

    @Test("texts that Swift calls equal hash by their bytes")
    func ignoresCanonicalEquivalence() {
        #expect("caf\u{e9}" == "cafe\u{301}")
        #expect(stableHash("caf\u{e9}") != stableHash("cafe\u{301}"))
    }

    @Test("names that differ in one number spread evenly over a few places", arguments: seeds)
    func spreads(seed: UInt64) {
        var counts = [Int](repeating: 0, count: 8)
        for n in 0..<8_000 { counts[Int(stableHash("10.0.0.\(n):8080", seed: seed) % 8)] += 1 }
        // 1000 expected, with a standard deviation of 30.
        #expect(counts.allSatisfy { (800...1_200).contains($0) }, "\(counts), seed \(seed)")
    }
}
