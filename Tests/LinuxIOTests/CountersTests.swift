import LinuxIO
import Primitives
import Testing

@Suite("Counters of many threads")
struct CountersTests {
    @Test("each thread counts in a lane of its own, and nothing is lost")
    func lanes() {
        let counters = Counters(width: 3, lanes: 4)
        let threads = (0..<4).map { lane in
            OSThread(name: "count") {
                for _ in 0..<100_000 { counters.add(lane + 1, to: 1, lane: lane) }
            }
        }
        for thread in threads { thread.join() }
        #expect(counters.total(0) == 0)
        #expect(counters.total(1) == 1_000_000)
        #expect(counters.total(2) == 0)
        for lane in 0..<4 { #expect(counters.value(1, lane: lane) == (lane + 1) * 100_000) }
    }

    @Test("a histogram keeps what was recorded, by bucket and in sum")
    func histogram() {
        let counters = Counters(width: 5 + Counters.histogramWidth, lanes: 2)
        counters.record(.microseconds(7), at: 5, lane: 0)
        counters.record(.microseconds(7), at: 5, lane: 1)
        counters.record(.seconds(1), at: 5, lane: 1)
        counters.record(.nanoseconds(-3), at: 5, lane: 1)
        let summary = counters.summary(at: 5)
        #expect(summary.count == 4)
        #expect(summary.counts[7] == 2)
        #expect(summary.counts[0] == 1)
        #expect(summary.counts[DurationScale.index(of: .seconds(1))] == 1)
        #expect(summary.sum == .seconds(1) + .microseconds(14))
        for slot in 0..<5 { #expect(counters.total(slot) == 0) }
    }
}

@Suite("What the process takes")
struct ProcessStatusTests {
    @Test("the numbers are those of a process that runs")
    func plausible() throws {
        let status = ProcessStatus.current()
        #expect(status.cpu > .zero)
        #expect(status.resident > 1 << 20 && status.resident < status.virtual)
        #expect(status.openDescriptors >= 3 && status.openDescriptors <= status.maxDescriptors)
        #expect(status.threads >= 1)
        #expect(status.heapUsed > 0)
        let start = ProcessStatus.startMicroseconds()
        let now = SystemClock.wallMicroseconds()
        #expect(start > now - 86_400_000_000 && start <= now + 1_000_000)
    }

    @Test("a descriptor more is one more")
    func descriptors() throws {
        let before = ProcessStatus.current().openDescriptors
        var held: [SpareDescriptor] = []
        for _ in 0..<64 { if let spare = SpareDescriptor() { held.append(spare) } }
        // Other tests open and close theirs meanwhile.
        #expect(ProcessStatus.current().openDescriptors >= before + 32)
        withExtendedLifetime(held) {}
    }
}
