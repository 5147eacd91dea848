import Primitives
import Testing

@testable import Gateway

@Suite("How slowly a client may send and read")
struct PaceTests {
    /// 100 bytes a second after 10 s.
    private static func floor() throws -> PaceFloor { try #require(PaceFloor(.bytes(100), grace: .seconds(10))) }
    private static func at(_ seconds: Int64) -> MonotonicTime { MonotonicTime(nanoseconds: seconds * 1_000_000_000) }

    @Test("no rate is no floor")
    func none() {
        #expect(PaceFloor(nil, grace: .seconds(1)) == nil)
        #expect(PaceFloor(.bytes(0), grace: .seconds(1)) == nil)
    }

    @Test("an upload has its grace, and each byte makes up for its time")
    func upload() throws {
        let floor = try Self.floor()
        var pace = UploadPace(floor)
        #expect(pace.bound(total: 0, at: Self.at(0), floor) == Self.at(10))
        #expect(pace.bound(total: 300, at: Self.at(5), floor) == Self.at(13))
        // One byte a second is not enough, however regularly it comes.
        for second in 6..<13 { _ = pace.bound(total: 294 + Int(second), at: Self.at(Int64(second)), floor) }
        let end = pace.bound(total: 307, at: Self.at(13), floor)
        #expect(end > Self.at(13) && end < Self.at(14))
        #expect(pace.bound(total: 308, at: Self.at(20), floor) == Self.at(20))
    }

    @Test("what was sent fast before buys no silence")
    func noCredit() throws {
        let floor = try Self.floor()
        var pace = UploadPace(floor)
        _ = pace.bound(total: 0, at: Self.at(0), floor)
        #expect(pace.bound(total: 1 << 40, at: Self.at(1), floor) == Self.at(11))
        #expect(pace.bound(total: .max, at: Self.at(2), floor) == Self.at(12))
    }

    @Test("the backend's turns do not count")
    func pauses() throws {
        let floor = try Self.floor()
        var pace = UploadPace(floor)
        _ = pace.bound(total: 0, at: Self.at(0), floor)
        pace.pause(total: 0, at: Self.at(4), floor)
        pace.pause(total: 0, at: Self.at(50), floor)
        #expect(pace.bound(total: 0, at: Self.at(100), floor) == Self.at(106))
    }

    @Test("a reader that keeps the pace is never too slow; one below it is, when the grace is used")
    func reading() throws {
        for (rate, expected) in [(100, nil), (150, nil), (50, 20), (0, 10)] as [(Int, Int64?)] {
            var pace = ReadingPace(silence: nil, floor: try Self.floor())
            var now = pace.begin(at: Self.at(0))
            let unread = 1 << 30
            var end: MonotonicTime?
            while end == nil, now < Self.at(500) {
                switch pace.look(unread: unread - Int(now.nanoseconds / 1_000_000) * rate / 1_000, at: now) {
                case .look(let next):
                    #expect(next > now)
                    now = next
                case .tooSlow: end = now
                }
            }
            if let expected {
                let end = try #require(end)
                #expect(end >= Self.at(expected) && end <= Self.at(expected + 5), "\(rate) bytes a second")
            } else {
                #expect(end == nil, "\(rate) bytes a second")
            }
        }
    }

    @Test("without a floor, a byte now and then is enough, and silence is not")
    func silence() {
        var pace = ReadingPace(silence: .seconds(8), floor: nil)
        var now = pace.begin(at: Self.at(0))
        #expect(now == Self.at(2))
        for round in 0..<100 {
            guard case .look(let next) = pace.look(unread: 1_000 - round, at: now) else {
                Issue.record("too slow in round \(round)")
                return
            }
            now = next
        }
        for _ in 0..<3 { if case .look(let next) = pace.look(unread: 901, at: now) { now = next } }
        #expect(pace.look(unread: 901, at: now) == .tooSlow)
    }

    @Test("without any bound nobody looks")
    func unbounded() {
        var pace = ReadingPace(silence: nil, floor: nil)
        #expect(pace.begin(at: Self.at(0)) == .distantFuture)
        #expect(pace.look(unread: 5, at: Self.at(1_000)) == .look(at: .distantFuture))
    }
}
