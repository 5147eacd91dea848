// One connected socket on a loop, with back-pressure in both directions.
//
// Reading: epoll is edge-triggered, so the stream remembers that there may be bytes until a read has shown that there
// are none. Whoever stops reading, because its budget is used or the other side is slow, just returns; the rest stays
// in the kernel's buffer, which is what slows the peer down. `resumeReading` brings the owner back.
// Writing: bytes go to the kernel at once. What it does not take is kept here, once, and the owner, who sees
// `pendingOutput`, stops producing until `streamDrained`.

package import LinuxIO
package import Primitives

/// The owner of a stream. Class-bound, so calling it costs what a virtual method costs.
package protocol StreamHandler: AnyObject {
    /// A connection that was started is made.
    func streamConnected(_ stream: Stream)
    /// There may be bytes, or the end of the peer's.
    func streamReadable(_ stream: Stream)
    /// Everything that was kept for sending is with the kernel now.
    func streamDrained(_ stream: Stream)
    /// The connection could not be made, or broke while nobody was reading or writing.
    func streamFailed(_ stream: Stream, _ error: SystemError)
    /// `deadline` has passed; it has been cleared.
    func streamDeadlinePassed(_ stream: Stream)
}

package final class Stream {
    package enum State { case connecting, open, closed }

    package let loop: Loop
    package var state: State { stateNow }
    var handler: (any StreamHandler)?

    // Stored properties are private and read through accessors: what other modules could change while it is in use is
    // checked at run time with each access, which costs more than all else that happens here.
    private var stateNow: State

    private let descriptor: Descriptor
    private var output = ByteBuffer()
    /// Set by an event, cleared by a read that emptied the socket.
    package var mayHaveBytes: Bool { mayHave }
    private var mayHave = false
    private var pending = 0
    /// The peer has ended its sending direction: data and end may have come as one event, so read on until the end.
    private var peerEnded = false
    private var writable: Bool
    private var resuming = false

    var slot = 0
    var generation: UInt32 = 0
    var scheduledTick: Int64 = .max
    private var deadlineValue = MonotonicTime.distantFuture

    /// What a stream may keep for a slow peer before its memory is given back when drained.
    private static let keptOutputCapacity = 4096

    init(_ descriptor: consuming Descriptor, loop: Loop, connecting: Bool) {
        self.descriptor = consume descriptor
        self.loop = loop
        stateNow = connecting ? .connecting : .open
        writable = !connecting
    }

    var cookie: UInt64 { UInt64(generation) << 32 | UInt64(slot) }

    /// Both directions have ended: the peer has reset the connection, or closed it behind what this side has ended.
    package var isReset: Bool { reset }
    private var reset = false

    /// This end, where it is of TCP.
    package var localAddress: SocketAddress? { stateNow == .closed ? nil : Socket.localAddress(descriptor) }

    package var isOpen: Bool { stateNow == .open }
    /// Memory that is kept for them.
    package var outputCapacity: Int { output.capacity }
    /// Bytes that the kernel has not taken yet.
    package var pendingOutput: Int { pending }

    /// When `streamDeadlinePassed` is called, unless it is moved before. Moving it later is free.
    package var deadline: MonotonicTime {
        get { deadlineValue }
        set {
            deadlineValue = newValue
            if newValue < .distantFuture { loop.schedule(self, newValue) }
        }
    }

    /// Gives the stream to another owner, who asks by himself for what may have arrived already.
    package func handOver(to handler: any StreamHandler) { self.handler = handler }

    func register(with epoll: borrowing Epoll) throws(SystemError) {
        try epoll.add(descriptor, cookie: cookie)
    }

    // MARK: Reading

    /// Reads once, at most `room` bytes.
    package func receive(into buffer: inout ByteBuffer, room: Int) -> IOOutcome {
        guard stateNow == .open else { return .endOfFile }
        let outcome = Socket.receive(descriptor, into: &buffer, room: room)
        switch outcome {
        case .bytes(let n):
            // Fewer than asked for: the socket is empty, and a further read would only say so.
            if n < room && !peerEnded { mayHave = false }
        case .wouldBlock, .endOfFile, .failed: mayHave = false
        }
        return outcome
    }

    /// Calls `streamReadable` again soon, if there may be bytes.
    package func resumeReading() {
        if mayHave { wakeSoon() }
    }

    /// Calls `streamReadable` again soon, whether or not the socket has bytes: for what the owner still holds.
    package func wakeSoon() {
        guard !resuming, stateNow == .open else { return }
        resuming = true
        loop.enqueue(self)
    }

    func resumed() {
        resuming = false
        if stateNow == .open { handler?.streamReadable(self) }
    }

    // MARK: Writing

    /// Sends bytes, keeping what the kernel does not take. `.bytes` tells how many the kernel took.
    @discardableResult
    package func send(_ bytes: Span<UInt8>) -> IOOutcome {
        guard stateNow == .open else { return .failed(.closedByPeer) }
        if bytes.isEmpty { return .bytes(0) }
        guard writable, pending == 0 else {
            keep(bytes)
            return .wouldBlock
        }
        let outcome = write(bytes)
        switch outcome {
        case .bytes(let n) where n < bytes.count:
            writable = false
            keep(bytes.extracting(n..<bytes.count))
        case .wouldBlock:
            writable = false
            keep(bytes)
        case .bytes, .endOfFile, .failed: break
        }
        return outcome
    }

    /// Sends two pieces, in one call where the kernel takes both.
    @discardableResult
    package func send(_ first: Span<UInt8>, _ second: Span<UInt8>) -> IOOutcome {
        guard !second.isEmpty else { return send(first) }
        guard !first.isEmpty else { return send(second) }
        guard stateNow == .open else { return .failed(.closedByPeer) }
        guard writable, pending == 0 else {
            keep(first)
            keep(second)
            return .wouldBlock
        }
        let outcome = Socket.send(descriptor, first, second)
        switch outcome {
        case .bytes(let n) where n < first.count + second.count:
            writable = false
            if n < first.count { keep(first.extracting(n..<first.count)) }
            keep(second.extracting(max(0, n - first.count)..<second.count))
        case .wouldBlock:
            writable = false
            keep(first)
            keep(second)
        case .bytes, .endOfFile, .failed: break
        }
        return outcome
    }

    private func write(_ bytes: Span<UInt8>) -> IOOutcome {
        Socket.send(descriptor, bytes)
    }

    /// Keeps what the kernel does not take.
    private func keep(_ bytes: Span<UInt8>) {
        var output = self.output.take()
        output.append(bytes)
        swap(&output, &self.output)
        pending += bytes.count
    }

    private func flush() {
        guard writable, pending > 0 else { return }
        var output = self.output.take()
        let outcome = write(output.bytes)
        if case .bytes(let n) = outcome {
            output.consume(n)
            pending -= n
        }
        if pending == 0, output.capacity > Self.keptOutputCapacity { output.release() }
        swap(&output, &self.output)
        switch outcome {
        case .bytes:
            if pending == 0 {
                handler?.streamDrained(self)
            } else {
                writable = false
            }
        case .wouldBlock: writable = false
        case .endOfFile: break
        case .failed(let error): handler?.streamFailed(self, error)
        }
    }

    /// Bytes that the peer has not taken: those kept here, and those that the kernel holds. A system call.
    package var unread: Int { pending + Socket.unacknowledged(descriptor) }

    /// Tells the peer that nothing more will come. Call when nothing is pending.
    package func shutdownWriting() {
        Socket.shutdownWriting(descriptor)
    }

    // MARK: Ending

    /// Closes the socket at once. Pending output is dropped and no further call comes.
    package func close() {
        guard stateNow != .closed else { return }
        stateNow = .closed
        descriptor.closeEarly()
        handler = nil
        _ = output.take()
        pending = 0
        loop.release(self)
    }

    /// Makes `close` send a reset, so that the peer learns that its exchange failed instead of taking half for the whole.
    package func abortOnClose() {
        Socket.setAbortOnClose(descriptor)
    }

    // MARK: Events

    func handle(_ events: IOEvents) {
        if stateNow == .connecting {
            finishConnecting(events)
            guard stateNow == .open else { return }
        }
        if events.contains(.hungUp) || events.contains(.failed) { reset = true }
        if events.contains(.peerClosed) || reset { peerEnded = true }
        let readable = events.contains(.readable) || peerEnded
        // Known before anything is written: where that fails, the owner can still look for what the peer said before.
        if readable { mayHave = true }
        if events.contains(.writable), !writable {
            writable = true
            flush()
            if stateNow != .open { return }
        }
        if readable { handler?.streamReadable(self) }
    }

    private func finishConnecting(_ events: IOEvents) {
        guard events.contains(.writable) || events.contains(.failed) || events.contains(.hungUp) else { return }
        var error = Socket.pendingError(descriptor)
        if error == nil, !events.contains(.writable) { error = .closedByPeer }
        if let error {
            handler?.streamFailed(self, error)
            return
        }
        stateNow = .open
        writable = true
        handler?.streamConnected(self)
    }

    func deadlineTicked(_ tick: Int64, now: MonotonicTime) {
        guard tick == scheduledTick else { return }
        scheduledTick = .max
        if deadlineValue > now {
            if deadlineValue < .distantFuture { loop.schedule(self, deadlineValue) }
        } else {
            deadlineValue = .distantFuture
            handler?.streamDeadlinePassed(self)
        }
    }
}
