import LinuxIO
import Primitives
import Synchronization
import Testing

private final class Calls: Sendable {
    let count = Atomic(0)
    func note() { count.wrappingAdd(1, ordering: .relaxed) }
}

@Suite("A closure that other threads call")
struct CallbackTests {
    @Test("the last one that was set is called")
    func lastOne() {
        let (callback, first, second) = (Callback(), Calls(), Calls())
        #expect(callback.body == nil)
        callback.set { first.note() }
        callback.body?()
        callback.set { second.note() }
        callback.body?()
        callback.body?()
        #expect(first.count.load(ordering: .relaxed) == 1 && second.count.load(ordering: .relaxed) == 2)
    }

    @Test("a call costs the same after many calls")
    func constant() {
        let (callback, calls) = (Callback(), Calls())
        callback.set { calls.note() }
        // The quickest of some rounds, so that a busy machine counts for nothing. Wrapped once more by each call, the
        // last rounds took 10,000 times as long as the first ones.
        var quickest: [TimeSpan] = []
        for part in 0..<2 {
            if part == 1 { for _ in 0..<20_000 { callback.body?() } }
            quickest.append(
                (0..<20).map { _ in
                    let begun = SystemClock.monotonic()
                    for _ in 0..<10 { callback.body?() }
                    return SystemClock.monotonic() - begun
                }.min() ?? .zero)
        }
        #expect(quickest[1] < max(quickest[0], .microseconds(1)) * 20, "\(quickest)")
        #expect(calls.count.load(ordering: .relaxed) == 20_400)
    }
}
