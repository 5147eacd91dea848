import Primitives
import Testing

@Suite("The scale of latencies")
struct DurationScaleTests {
    @Test("every bucket begins where the one before it ends, and holds its own bounds")
    func seamless() {
        for index in 0..<DurationScale.count {
            let low = DurationScale.lowerBound(index)
            let next = DurationScale.lowerBound(index + 1)
            #expect(low < next)
            #expect(DurationScale.index(of: low) == index)
            #expect(DurationScale.index(of: next - .nanoseconds(1)) == index)
        }
    }

    @Test("a bucket is no wider than 1/32 of what it holds, or than a microsecond")
    func precise() {
        for index in 0..<DurationScale.count {
            let low = DurationScale.lowerBound(index)
            let width = DurationScale.lowerBound(index + 1) - low
            #expect(width <= max(.microseconds(1), low / 32), "\(index)")
        }
    }

    @Test(
        "what lies outside counts at the ends",
        arguments: [
            (TimeSpan.nanoseconds(-5), 0), (.zero, 0), (.nanoseconds(999), 0), (.microseconds(1), 1),
            (.seconds(2_147), 863), (.seconds(1_000_000), 863), (.max, 863),
        ])
    func ends(span: TimeSpan, index: Int) { #expect(DurationScale.index(of: span) == index) }

    @Test("quantiles and counts are those of what was recorded, but for a bucket's width")
    func summary() {
        var summary = DurationSummary()
        #expect(summary.quantile(0.5) == .zero)
        for milliseconds in 1...1_000 {
            let span = TimeSpan.milliseconds(Int64(milliseconds))
            summary.add(1, at: DurationScale.index(of: span))
            summary.add(sum: span)
        }
        #expect(summary.count == 1_000)
        #expect(summary.sum == .milliseconds(500_500))
        for (share, expected) in [(0.5, 500.0), (0.9, 900), (0.99, 990), (1, 1_000)] {
            #expect(abs(summary.quantile(share).seconds * 1_000 - expected) <= expected / 32)
            let bound = TimeSpan.milliseconds(Int64(expected))
            #expect(abs(Double(summary.count(upTo: bound)) - expected) <= expected / 32)
        }
        #expect(summary.count(upTo: .microseconds(500)) == 0)
        #expect(summary.count(upTo: .seconds(10)) == 1_000)
    }

    @Test("two looks at a histogram tell what came in between")
    func between() {
        var first = DurationSummary()
        first.add(3, at: 10)
        first.add(sum: .milliseconds(5))
        var second = first
        second.add(2, at: 10)
        second.add(1, at: 500)
        second.add(sum: .milliseconds(2))
        let difference = second.since(first)
        #expect(difference.count == 3)
        #expect(difference.counts[10] == 2)
        #expect(difference.counts[500] == 1)
        #expect(difference.sum == .milliseconds(2))
        first.add(difference)
        #expect(first.counts == second.counts)
        #expect(first.count == second.count)
    }
}
