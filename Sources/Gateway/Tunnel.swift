// A client and a backend that have agreed on another protocol than HTTP: bytes go both ways as they come. What is to be
// done is `TunnelState`'s to say; this moves the bytes.

import Configuration
import EventLoop
import LinuxIO
import Primitives

final class Tunnel: StreamHandler {
    private(set) var service: Service
    private(set) var backendIndex: Int
    /// Its place in the worker's list of tunnels.
    var place = 0
    private let worker: Worker
    private let client: ClientConnection
    private let backend: BackendConnection
    private var state: TunnelState
    private var received = 0
    private var sent = 0
    private var finished = false
    /// What the backend sends to the client, where it is frames of a WebSocket.
    private var frames: FrameBorders?
    private var goodbye = Goodbye.unsaid

    /// How far the client has been told that the gateway goes away.
    private enum Goodbye {
        case unsaid
        /// As soon as the frame has ended that is on its way.
        case atNextBorder
        /// Nothing may follow it (RFC 6455 §5.5.1): what the backend still sends is dropped.
        case said
    }

    init(
        _ client: ClientConnection, _ backend: BackendConnection, service: Service, backendIndex: Int,
        isWebSocket: Bool
    ) {
        frames = isWebSocket ? FrameBorders() : nil
        self.client = client
        self.backend = backend
        self.service = service
        self.backendIndex = backendIndex
        worker = client.worker
        let timeouts = service.settings.timeouts
        state = TunnelState(TunnelTimes(idle: timeouts.tunnel, strained: timeouts.idle), at: worker.loop.now)
        backend.stream.deadline = .distantFuture
        client.stream.handOver(to: self)
        backend.stream.handOver(to: self)
    }

    private func stream(_ side: TunnelSide) -> Stream { side == .client ? client.stream : backend.stream }
    private func side(_ stream: Stream) -> TunnelSide { stream === client.stream ? .client : .backend }

    // MARK: Bytes

    /// Hands bytes of `side` on: what came with the heads, and what is read later.
    func pass(_ bytes: Span<UInt8>, from side: TunnelSide) { pass(Span<UInt8>(), bytes, from: side) }

    /// `head` is written before them and is none of them.
    func pass(_ head: Span<UInt8>, _ bytes: Span<UInt8>, from side: TunnelSide) {
        switch side {
        case .client: received += bytes.count
        case .backend:
            sent += bytes.count
            if goodbye != .unsaid { return passFrames(bytes) }
            frames?.pass(bytes)
        }
        hand(head, bytes, from: side)
    }

    private func hand(_ head: Span<UInt8>, _ bytes: Span<UInt8>, from side: TunnelSide) {
        let sink = stream(side.other)
        switch sink.send(head, bytes) {
        case .failed:
            obey(state.refused(side.other, at: worker.loop.now))
            // What the sink had to say before it broke may be in its socket yet.
            sink.wakeSoon()
        case .bytes, .wouldBlock, .endOfFile: state.moved(from: side, pending: sink.pendingOutput, at: worker.loop.now)
        }
    }

    /// The rest of the frame that was on its way, and the goodbye behind it.
    private func passFrames(_ bytes: Span<UInt8>) {
        guard goodbye == .atNextBorder else { return }
        let rest = frames?.pass(bytes, stopAtBorder: true) ?? bytes.count
        guard frames?.isAtBorder == true else { return hand(bytes, Span<UInt8>(), from: .backend) }
        goodbye = .said
        let frame = frames?.hasClosed == true ? [] : FrameBorders.goingAway
        hand(bytes.extracting(0..<rest), frame.span, from: .backend)
    }

    private func sayGoodbye() {
        guard let frames, goodbye == .unsaid, !frames.hasClosed else { return }
        guard frames.isAtBorder else {
            goodbye = .atNextBorder
            return
        }
        goodbye = .said
        let frame = FrameBorders.goingAway
        hand(frame.span, Span<UInt8>(), from: .backend)
    }

    /// Goes on with what both sockets hold; no event announces it again.
    func begin() {
        guard !finished else { return }
        client.stream.wakeSoon()
        backend.stream.wakeSoon()
        arm()
    }

    private func pump(_ side: TunnelSide) {
        let source = stream(side)
        var reads = DataPathLimits.readsPerTurn
        while !finished, source.mayHaveBytes {
            let reading = state.reading(from: side)
            if reading == .nothing { break }
            guard reads > 0 else {
                source.resumeReading()
                break
            }
            reads -= 1
            var input = worker.input.take()
            input.clear()
            let outcome = source.receive(into: &input, room: DataPathLimits.readBytes)
            if case .bytes = outcome, reading == .forward { pass(input.bytes, from: side) }
            swap(&input, &worker.input)
            switch outcome {
            case .bytes: break
            case .wouldBlock: break
            case .endOfFile: obey(state.ended(side, at: worker.loop.now))
            case .failed: obey(state.broke(side, at: worker.loop.now))
            }
        }
        arm()
    }

    private func arm() {
        if !finished { client.stream.deadline = state.deadline }
    }

    // MARK: Ends

    var isLeaving: Bool { state.isLeaving }

    /// The configuration has changed, and its backend is still there.
    func move(to service: Service, _ backendIndex: Int) {
        self.service = service
        self.backendIndex = backendIndex
    }

    func leave(by time: MonotonicTime) {
        state.leave(by: time)
        if frames != nil { state.sayGoodbye(at: worker.loop.now) }
        arm()
    }

    func stay() {
        state.stay()
        arm()
    }

    /// The node ends with the tunnel open.
    fileprivate func cutOff() { obey(.finish) }

    private func obey(_ actions: TunnelActions) {
        guard !finished, !actions.isEmpty else { return }
        if actions.contains(.sayGoodbye) { sayGoodbye() }
        if actions.contains(.endClient) { client.stream.shutdownWriting() }
        if actions.contains(.endBackend) { backend.stream.shutdownWriting() }
        if actions.contains(.finish) {
            finished = true
            worker.tunnels.remove(self)
            backend.close()
            client.tunnelEnded(received: received, sent: sent)
            return
        }
        // What was left in the kernel may be wanted now, if only to be dropped.
        client.stream.resumeReading()
        backend.stream.resumeReading()
    }

    // MARK: Stream

    func streamConnected(_ stream: Stream) {}

    func streamReadable(_ stream: Stream) { pump(side(stream)) }

    func streamDrained(_ stream: Stream) {
        obey(state.drained(side(stream), at: worker.loop.now))
        guard !finished else { return }
        self.stream(side(stream).other).resumeReading()
        arm()
    }

    func streamFailed(_ stream: Stream, _ error: SystemError) {
        obey(state.refused(side(stream), at: worker.loop.now))
        stream.wakeSoon()
        arm()
    }

    func streamDeadlinePassed(_ stream: Stream) {
        obey(
            state.deadlinePassed(
                clientPending: client.stream.pendingOutput, backendPending: backend.stream.pendingOutput,
                at: worker.loop.now))
        arm()
    }
}

/// The tunnels of a worker, for what concerns many of them.
final class Tunnels {
    private var all: [Tunnel] = []

    func add(_ tunnel: Tunnel) {
        tunnel.place = all.count
        all.append(tunnel)
    }

    func remove(_ tunnel: Tunnel) {
        let last = all.count - 1
        let place = tunnel.place
        guard place <= last, all[place] === tunnel else { return }
        all.swapAt(place, last)
        all[place].place = place
        all.removeLast()
    }

    /// Another view of a service's backends: the tunnels of those that have left may live on for a while, and for good
    /// where their backend is back in time.
    func viewChanged(_ service: Service, at now: MonotonicTime, isAvailable: (Int) -> Bool) {
        guard !all.isEmpty else { return }
        for tunnel in all where tunnel.service === service && isAvailable(tunnel.backendIndex) { tunnel.stay() }
        guard let grace = service.settings.timeouts.tunnelGrace else { return }
        end(all.filter { $0.service === service && !isAvailable($0.backendIndex) && !$0.isLeaving }, in: grace, at: now)
    }

    /// Another configuration counts. Tunnels to backends that it no longer has end like those of backends that have left.
    func reloaded(_ services: [Service], at now: MonotonicTime) {
        guard !all.isEmpty else { return }
        var orphans: [Tunnel] = []
        let byName = Dictionary(services.map { ($0.settings.name, $0) }) { first, _ in first }
        for tunnel in all {
            let url = tunnel.service.backends[tunnel.backendIndex].url
            if let service = byName[tunnel.service.settings.name],
                let index = service.backends.firstIndex(where: { $0.url == url })
            {
                tunnel.move(to: service, index)
            } else if !tunnel.isLeaving {
                orphans.append(tunnel)
            }
        }
        var left = orphans[...]
        while let service = left.first?.service {
            let mine = left.filter { $0.service === service }
            left = left.filter { $0.service !== service }[...]
            if let grace = service.settings.timeouts.tunnelGrace { end(mine, in: grace, at: now) }
        }
    }

    /// The node leaves: all tunnels end early enough for their last bytes to leave before `timeout` is over.
    func drain(within timeout: TimeSpan, at now: MonotonicTime) {
        let most = timeout * 3 / 4
        for tunnel in all { tunnel.leave(by: now + most) }
        var left = all[...]
        while let service = left.first?.service {
            let mine = left.filter { $0.service === service }
            left = left.filter { $0.service !== service }[...]
            if let grace = service.settings.timeouts.tunnelGrace { end(mine, in: min(grace, most), at: now) }
        }
    }

    func cutOff() {
        // Each takes itself out.
        let open = all
        for tunnel in open { tunnel.cutOff() }
    }

    /// Spreads the ends over the second half of the time: clients that all lost their connection at once would all be
    /// back at once.
    private func end(_ leaving: [Tunnel], in grace: TimeSpan, at now: MonotonicTime) {
        let step = grace / 2 / Int64(max(1, leaving.count))
        for (index, tunnel) in leaving.enumerated() { tunnel.leave(by: now + grace - step * Int64(index)) }
    }
}
