import Primitives
import Testing

@testable import Gateway

@Suite("A tunnel's state")
struct TunnelStateTests {
    private static let start = MonotonicTime(nanoseconds: 1_000_000_000)
    private static let idle = TimeSpan.seconds(3_600)
    private static let strained = TimeSpan.seconds(60)

    private static func tunnel(_ times: TunnelTimes = TunnelTimes(idle: idle, strained: strained)) -> TunnelState {
        TunnelState(times, at: start)
    }

    private func after(_ seconds: Int64) -> MonotonicTime { Self.start + .seconds(seconds) }

    @Test("a source is read only while its sink has nothing waiting", arguments: TunnelSide.allCases)
    func backPressure(side: TunnelSide) {
        var tunnel = Self.tunnel()
        #expect(tunnel.reading(from: side) == .forward)
        tunnel.moved(from: side, pending: 1, at: after(1))
        #expect(tunnel.reading(from: side) == .nothing)
        #expect(tunnel.reading(from: side.other) == .forward)
        #expect(tunnel.drained(side.other, at: after(2)) == [])
        #expect(tunnel.reading(from: side) == .forward)
    }

    private func end(_ side: TunnelSide) -> TunnelActions { side == .client ? .endClient : .endBackend }

    @Test("the end of one side is passed on, and the other direction goes on", arguments: TunnelSide.allCases)
    func halfClose(side: TunnelSide) {
        var tunnel = Self.tunnel()
        #expect(tunnel.ended(side, at: after(1)) == end(side.other))
        #expect(tunnel.reading(from: side) == .nothing)
        #expect(tunnel.reading(from: side.other) == .forward)
        #expect(tunnel.ended(side.other, at: after(2)) == [end(side), .finish])
    }

    @Test("an end waits for the bytes before it", arguments: TunnelSide.allCases)
    func endBehindBytes(side: TunnelSide) {
        var tunnel = Self.tunnel()
        tunnel.moved(from: side, pending: 10, at: after(1))
        #expect(tunnel.ended(side, at: after(1)) == [])
        #expect(tunnel.ended(side.other, at: after(2)) == end(side))
        #expect(tunnel.drained(side.other, at: after(3)) == [end(side.other), .finish])
    }

    @Test("a side that breaks ends the other one behind its last byte, and what that one sends on is dropped")
    func broken() {
        var tunnel = Self.tunnel()
        tunnel.moved(from: .backend, pending: 10, at: after(1))
        #expect(tunnel.broke(.backend, at: after(2)) == [])
        #expect(tunnel.reading(from: .client) == .discard)
        #expect(tunnel.drained(.client, at: after(3)) == .endClient)
        #expect(tunnel.deadline == after(3) + DataPathLimits.tunnelLingerTime)
        #expect(tunnel.ended(.client, at: after(4)) == .finish)
    }

    @Test("a client that stays after its backend broke is let go of soon")
    func lingering() {
        var tunnel = Self.tunnel()
        #expect(tunnel.broke(.backend, at: after(1)) == .endClient)
        #expect(tunnel.deadlinePassed(clientPending: 0, backendPending: 0, at: after(2)) == [])
        #expect(tunnel.deadlinePassed(clientPending: 0, backendPending: 0, at: after(3)) == .finish)
    }

    @Test("a side that refuses bytes is read to its end all the same")
    func refused() {
        var tunnel = Self.tunnel()
        tunnel.moved(from: .client, pending: 5, at: after(1))
        #expect(tunnel.refused(.backend, at: after(2)) == [])
        #expect(tunnel.reading(from: .client) == .discard)
        #expect(tunnel.reading(from: .backend) == .forward)
        tunnel.moved(from: .backend, pending: 0, at: after(3))
        #expect(tunnel.ended(.backend, at: after(4)) == .endClient)
        #expect(tunnel.ended(.client, at: after(5)) == .finish)
    }

    @Test("both sides silent for the idle time is the end; each byte begins it anew")
    func idle() {
        var tunnel = Self.tunnel()
        #expect(tunnel.deadline == after(3_600))
        tunnel.moved(from: .client, pending: 0, at: after(100))
        #expect(tunnel.deadline == after(3_700))
        #expect(tunnel.deadlinePassed(clientPending: 0, backendPending: 0, at: after(3_600)) == [])
        #expect(
            tunnel.deadlinePassed(clientPending: 0, backendPending: 0, at: after(3_700)) == [.endClient, .endBackend])
        #expect(tunnel.deadline == after(3_702))
        #expect(tunnel.ended(.client, at: after(3_701)) == [])
        #expect(tunnel.deadlinePassed(clientPending: 0, backendPending: 0, at: after(3_702)) == .finish)
    }

    @Test("a half-closed tunnel gets the shorter time")
    func halfClosedSilence() {
        var tunnel = Self.tunnel()
        _ = tunnel.ended(.client, at: after(10))
        #expect(tunnel.deadline == after(70))
        tunnel.moved(from: .backend, pending: 0, at: after(60))
        #expect(tunnel.deadline == after(120))
        #expect(tunnel.deadlinePassed(clientPending: 0, backendPending: 0, at: after(120)) == .endClient)
    }

    @Test("a side that takes nothing is cut off, one that is slow is not")
    func stalled() {
        var tunnel = Self.tunnel()
        tunnel.moved(from: .backend, pending: 1_000, at: after(1))
        #expect(tunnel.deadline == after(61))
        #expect(tunnel.deadlinePassed(clientPending: 900, backendPending: 0, at: after(61)) == [])
        #expect(tunnel.deadline == after(121))
        #expect(tunnel.deadlinePassed(clientPending: 900, backendPending: 0, at: after(121)) == .finish)
    }

    @Test("without limits there is no deadline")
    func unlimited() {
        var tunnel = Self.tunnel(TunnelTimes(idle: nil, strained: nil))
        #expect(tunnel.deadline == .distantFuture)
        _ = tunnel.ended(.client, at: after(1))
        #expect(tunnel.deadline == .distantFuture)
        tunnel = Self.tunnel(TunnelTimes(idle: nil, strained: .seconds(60)))
        #expect(tunnel.deadline == .distantFuture)
        _ = tunnel.ended(.client, at: after(1))
        #expect(tunnel.deadline == after(61))
    }

    @Test("a tunnel whose time is up tells both sides, whatever they send, and is over two seconds later at the latest")
    func leaving() {
        var tunnel = Self.tunnel()
        tunnel.leave(by: after(30))
        tunnel.leave(by: after(40))
        #expect(tunnel.isLeaving && tunnel.deadline == after(30))
        tunnel.moved(from: .client, pending: 0, at: after(29))
        tunnel.moved(from: .backend, pending: 100, at: after(29))
        #expect(tunnel.deadlinePassed(clientPending: 100, backendPending: 0, at: after(30)) == .endBackend)
        #expect(tunnel.deadline == after(32))
        #expect(tunnel.reading(from: .client) == .discard)
        #expect(tunnel.deadlinePassed(clientPending: 50, backendPending: 0, at: after(32)) == .finish)
    }

    @Test("a tunnel whose backend is back stays")
    func staying() {
        var tunnel = Self.tunnel()
        tunnel.leave(by: after(30))
        tunnel.stay()
        #expect(!tunnel.isLeaving && tunnel.deadline == after(3_600))
    }

    @Test("a tunnel that says goodbye does so once, two seconds before its end, and then stays no more")
    func goodbye() {
        var tunnel = Self.tunnel()
        tunnel.sayGoodbye(at: after(0))
        #expect(tunnel.deadline == after(3_600))
        tunnel.leave(by: after(30))
        tunnel.sayGoodbye(at: after(10))
        #expect(tunnel.deadline == after(28))
        #expect(tunnel.deadlinePassed(clientPending: 0, backendPending: 0, at: after(28)) == .sayGoodbye)
        #expect(tunnel.reading(from: .client) == .forward)
        tunnel.stay()
        tunnel.sayGoodbye(at: after(29))
        #expect(tunnel.deadline == after(30))
        #expect(
            tunnel.deadlinePassed(clientPending: 0, backendPending: 0, at: after(30)) == [.endClient, .endBackend])
    }

    @Test("a short time is halved for the goodbye, and a tunnel that stays says none")
    func shortGoodbye() {
        var tunnel = Self.tunnel()
        tunnel.leave(by: after(12))
        tunnel.sayGoodbye(at: after(10))
        #expect(tunnel.deadline == after(11))
        tunnel.stay()
        #expect(tunnel.deadline == after(3_600))
    }

    @Test("a client that was told the end hears no goodbye behind it")
    func lateGoodbye() {
        var tunnel = Self.tunnel()
        #expect(tunnel.ended(.backend, at: after(1)) == .endClient)
        tunnel.leave(by: after(30))
        tunnel.sayGoodbye(at: after(1))
        #expect(tunnel.deadlinePassed(clientPending: 0, backendPending: 0, at: after(28)) == [])
        #expect(tunnel.deadlinePassed(clientPending: 0, backendPending: 0, at: after(30)) == .endBackend)
    }

    /// Every order of events ends a tunnel once, never reads an ended side, and never tells a side twice.
    @Test("random events keep the rules", arguments: 0..<200)
    func random(seed: UInt64) {
        var generator = SplitMix64(seed: seed)
        var tunnel = Self.tunnel()
        var told: TunnelActions = []
        var finished = false
        var pending: [TunnelSide: Int] = [.client: 0, .backend: 0]
        var gone: Set<TunnelSide> = []
        var now = Self.start
        for _ in 0..<200 where !finished {
            now = now + .milliseconds(Int64(generator.next() % 2_000))
            let side = generator.next() % 2 == 0 ? TunnelSide.client : .backend
            var actions: TunnelActions = []
            switch generator.next() % 12 {
            case 0..<5:
                guard tunnel.reading(from: side) == .forward else { break }
                #expect(pending[side.other] == 0 && !gone.contains(side))
                pending[side.other] = Int(generator.next() % 3)
                tunnel.moved(from: side, pending: pending[side.other] ?? 0, at: now)
            case 5..<8:
                guard pending[side] ?? 0 > 0 else { break }
                pending[side] = 0
                actions = tunnel.drained(side, at: now)
            case 8:
                guard tunnel.reading(from: side) != .nothing else { break }
                gone.insert(side)
                actions = tunnel.ended(side, at: now)
            case 9:
                guard tunnel.reading(from: side) != .nothing else { break }
                gone.insert(side)
                pending[side] = 0
                actions = tunnel.broke(side, at: now)
            case 10:
                tunnel.leave(by: now + .seconds(5))
                tunnel.sayGoodbye(at: now)
            default:
                actions = tunnel.deadlinePassed(
                    clientPending: pending[.client] ?? 0, backendPending: pending[.backend] ?? 0, at: now)
            }
            #expect(told.isDisjoint(with: actions))
            told.formUnion(actions)
            if actions.contains(.endClient) { #expect(pending[.client] == 0) }
            if actions.contains(.endBackend) { #expect(pending[.backend] == 0) }
            finished = actions.contains(.finish)
        }
        // Whatever state it is in, silence ends it.
        for _ in 0..<6 where !finished {
            now = max(now, tunnel.deadline)
            #expect(now < .distantFuture)
            finished =
                tunnel.deadlinePassed(
                    clientPending: pending[.client] ?? 0, backendPending: pending[.backend] ?? 0, at: now
                ).contains(.finish)
        }
        #expect(finished)
    }
}
