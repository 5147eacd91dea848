import Primitives
import Testing

/// Values around which 64-bit arithmetic goes wrong.
private let edges: [Int64] = [
    .min, .min + 1, -9_223_372_037, -1_000_000_001, -1_000, -2, -1, 0, 1, 2, 999, 1_000, 1_000_000, 3_037_000_500,
    9_223_372_036, 9_223_372_037, .max - 1, .max,
]

/// What arithmetic without bounds gives, brought back into 64 bits.
private func clamped(_ exact: Int128) -> Int64 { Int64(clamping: exact) }

@Suite("Lengths of time")
struct TimeSpanTests {
    @Test("sum, difference and product saturate at every edge", arguments: edges)
    func saturatesAtEdges(a: Int64) {
        for b in edges { checkArithmetic(a, b, "\(a) and \(b)") }
    }

    @Test("sum, difference, product and quotient are those of wider numbers, brought into range", arguments: seeds)
    func saturatesLikeWiderNumbers(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        for _ in 0..<2_000 {
            // A random shift makes every magnitude equally likely; uniform numbers would nearly all overflow.
            let a = Int64(bitPattern: random.next()) >> Int64.random(in: 0...63, using: &random)
            let b = Int64(bitPattern: random.next()) >> Int64.random(in: 0...63, using: &random)
            checkArithmetic(a, b, "\(a) and \(b), seed \(seed)")
        }
    }

    private func checkArithmetic(_ a: Int64, _ b: Int64, _ context: Comment) {
        let (left, right) = (TimeSpan.nanoseconds(a), TimeSpan.nanoseconds(b))
        let (wideA, wideB) = (Int128(a), Int128(b))
        #expect((left + right).nanoseconds == clamped(wideA + wideB), context)
        #expect((left - right).nanoseconds == clamped(wideA - wideB), context)
        #expect((left * b).nanoseconds == clamped(wideA * wideB), context)
        if b != 0 { #expect((left / b).nanoseconds == clamped(wideA / wideB), context) }
        #expect((left < right) == (a < b), context)
        #expect(TimeSpan.microseconds(a).nanoseconds == clamped(wideA * 1_000), context)
        #expect(TimeSpan.milliseconds(a).nanoseconds == clamped(wideA * 1_000_000), context)
        #expect(TimeSpan.seconds(a).nanoseconds == clamped(wideA * 1_000_000_000), context)
    }

    @Test(
        "division by zero gives the longest of the same sign",
        arguments: [(1, .max), (-1, .min), (0, 0), (.max, .max), (.min, .min)] as [(Int64, Int64)])
    func dividesByZero(nanoseconds: Int64, quotient: Int64) {
        #expect(TimeSpan(nanoseconds: nanoseconds) / 0 == TimeSpan(nanoseconds: quotient))
    }

    @Test("the shortest length divided by -1 saturates")
    func dividesTheShortest() {
        #expect(TimeSpan(nanoseconds: .min) / -1 == .max)
    }

    @Test("whole microseconds and milliseconds round towards zero")
    func roundsTowardsZero() {
        let span = TimeSpan.nanoseconds(1_999_999)
        #expect(span.microseconds == 1_999)
        #expect(span.milliseconds == 1)
        let negative = TimeSpan.zero - span
        #expect(negative.microseconds == -1_999)
        #expect(negative.milliseconds == -1)
        #expect(TimeSpan.milliseconds(1_500).seconds == 1.5)
    }

    @Test(
        "the description uses the largest unit that divides the length",
        arguments: [
            (0, "0s"), (1, "1ns"), (999, "999ns"), (1_000, "1us"), (1_001, "1001ns"), (1_500_000, "1500us"),
            (500_000_000, "500ms"), (1_500_000_000, "1500ms"), (30_000_000_000, "30s"), (60_000_000_000, "1m"),
            (90_000_000_000, "90s"), (300_000_000_000, "5m"), (3_600_000_000_000, "1h"), (5_400_000_000_000, "90m"),
            (86_400_000_000_000, "1d"), (129_600_000_000_000, "36h"), (-1_500_000_000, "-1500ms"),
            (-86_400_000_000_000, "-1d"), (.max, "9223372036854775807ns"), (.min, "-9223372036854775808ns"),
        ] as [(Int64, String)])
    func describes(nanoseconds: Int64, text: String) {
        #expect(TimeSpan(nanoseconds: nanoseconds).description == text)
    }
}

@Suite("Moments")
struct MomentTests {
    @Test("monotonic moments saturate instead of wrapping around", arguments: edges)
    func monotonicSaturates(a: Int64) {
        let moment = MonotonicTime(nanoseconds: a)
        for b in edges {
            let span = TimeSpan(nanoseconds: b)
            let other = MonotonicTime(nanoseconds: b)
            #expect((moment + span).nanoseconds == clamped(Int128(a) + Int128(b)), "\(a) and \(b)")
            #expect((moment - span).nanoseconds == clamped(Int128(a) - Int128(b)), "\(a) and \(b)")
            #expect((moment - other).nanoseconds == clamped(Int128(a) - Int128(b)), "\(a) and \(b)")
            #expect((moment < other) == (a < b), "\(a) and \(b)")
        }
    }

    @Test("moments of Redis count microseconds and saturate", arguments: edges)
    func redisSaturates(a: Int64) {
        let moment = RedisTime(microseconds: a)
        for b in edges {
            let span = TimeSpan(nanoseconds: b)
            let other = RedisTime(microseconds: b)
            #expect((moment + span).microseconds == clamped(Int128(a) + Int128(b / 1_000)), "\(a) and \(b)")
            #expect((moment - span).microseconds == clamped(Int128(a) - Int128(b / 1_000)), "\(a) and \(b)")
            #expect((moment - other).nanoseconds == clamped((Int128(a) - Int128(b)) * 1_000), "\(a) and \(b)")
            #expect((moment < other) == (a < b), "\(a) and \(b)")
        }
    }

    @Test("nothing added to the distant future passes it")
    func distantFutureStays() {
        #expect(MonotonicTime.distantFuture + .seconds(1) == .distantFuture)
        #expect(MonotonicTime.distantFuture - MonotonicTime(nanoseconds: -1) == .max)
    }
}
