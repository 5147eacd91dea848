// One client's connection: it reads requests one after the other and takes each through its life.
//
//   head → route → identify → limit → pick → connect → send → relay → log
//
// This file holds the connection itself: reading, phases, ending. `ClientConnection+Request` takes a request to its
// backend, `ClientConnection+Response` takes the answer back.

import Configuration
import EventLoop
import HTTP1
import Identity
import LinuxIO
import Primitives
import RateLimiting

/// Trailer lines, until the bodies before them have ended.
final class Trailers {
    var request = ByteBuffer()
    /// Only where the client wants them.
    var response = ByteBuffer()
}

final class ClientConnection: StreamHandler {
    enum Phase {
        /// A request head is awaited or arriving.
        case head
        /// Whose credential it is, nobody on this thread knows; the head is kept, and read again when the answer is here.
        case identifying
        /// The limiter is being asked.
        case deciding
        /// A place among the connections to the chosen backend is awaited.
        case waiting
        /// A backend connection, perhaps not made yet, is bound to the exchange.
        case exchanging
        /// The backend has switched to another protocol; the bytes are a `Tunnel`'s business.
        case tunneling
        /// The gateway has answered by itself; the rest of the request's body is read and dropped.
        case discarding
        /// Nothing more will be answered; what still arrives is dropped, so that no reset overtakes the answer.
        case lingering
        case closed
    }

    let worker: Worker
    /// The worker's: one step away, since what is two steps away is counted with each use.
    let loop: Loop
    let stream: Stream
    /// Whose connection this is: the socket's peer, or whom that names by the PROXY protocol.
    var peer: IPAddress
    var peerSource = PeerSource.socket
    var peerTrusted: Bool
    /// Whether another configuration has come into force since it was last asked whom to trust.
    var isOutdated = false
    /// Whether the PROXY header is still to come.
    var awaitsProxyHeader = false
    /// The client against whose limit the connection counts.
    var countedClient: IPAddress?

    var phase = Phase.head
    /// Its place in the worker's list of clients.
    var place = 0
    /// Counts the requests of this connection, and tells a late answer for one from an answer for the next.
    var exchange: UInt64 = 0
    var keepAlive = true
    /// Bytes received and not yet understood: the beginning of a head, or what follows the current request.
    private var held = ByteBuffer()
    var heldCapacity: Int { held.capacity }
    private var headBegun = false
    private var progress = HeadProgress()
    private var peerEnded = false
    private var discarded = 0
    var reading: ReadingPace
    private var readerWatched = false
    var upload = UploadPace(nil)
    let acceptedAt: MonotonicTime

    // The exchange at hand; set by `begin`, read until it is logged.
    /// The service as the worker saw it when the request came: what has begun ends with the configuration it began with.
    var lane: Lane?
    var service: Service? { lane?.service }
    var backend: BackendConnection?
    var backendIndex = 0
    var client: IPAddress
    var clientScheme: ForwardedScheme?
    /// Who asks, where a credential says so; read where the node authenticates.
    var caller: Caller?
    /// What a request waits for whose credential is looked at, and what was said of it.
    var lookedAt: CredentialLook?
    var hash: UInt64 = 0
    var method = Method.get
    var version = HTTPVersion.http11
    var expectsContinue = false
    /// Whether the rewritten head names a host; a request of HTTP/1.0 need not.
    var hasHost = true
    var startedAt = MonotonicTime(nanoseconds: 0)
    /// When a connection to the backend was there, or was begun.
    var sentAt = MonotonicTime(nanoseconds: 0)
    /// When the backend began its answer.
    var answeredAt = MonotonicTime(nanoseconds: 0)
    var request = BodyDecoder(RequestFraming.none, limits: HeadLimits())
    var requestChunked = false
    /// The protocol that the backend was asked to switch to, by its place in the service's list.
    var upgrade: Int?
    var requestBytes = 0
    /// What goes to the backend: the head, and the body as far as it was not sent directly.
    var outbound = ByteBuffer()
    var outboundSent = 0
    /// Where the part of the head that depends on the backend begins, and how long it is.
    var tailStart = 0
    var tailLength = 0
    /// Where the path begins, and how long the backend's base path before it is.
    var pathStart = 0
    var baseLength = 0
    /// Whether `outbound` still holds all that this exchange sent.
    var replayable = true
    /// Whether it was sent again because a pooled connection had died; once is enough.
    var staleRetried = false
    /// Other backends on which it may still be tried.
    var attemptsLeft = 0
    /// The backends that this request has been tried on, by place; those beyond 64 are not told apart.
    var tried: UInt64 = 0
    /// The backend reads no more of the request, but its answer may be on the way.
    var uploadBroken = false
    /// Whether this exchange is among those in flight at its backend.
    var counted = false
    /// Whether this request is the one that tries a backend whose breaker is half-open.
    var isTrial = false
    var trialTimer: LoopTimer?
    /// Whether its answer counts already: as a failure by its status, or as a success since it is here or goes on so long.
    var isJudged = false
    /// Whether a backend was picked, for the log.
    var usedBackend = false
    var responseStarted = false
    /// The trailer lines of this exchange, which few have.
    var trailers: Trailers?
    var acceptsTrailers = false
    /// Interim answers of this exchange.
    var interims = 0
    var response = BodyDecoder(ResponseFraming.none, limits: HeadLimits())
    var delivery = ResponseDelivery.asAnnounced
    var status = 0
    var responseBytes = 0
    var backendKeepsAlive = false
    /// The request line's method and target for the access log; empty when there is none.
    var logged = ByteBuffer()
    var limiterOutcome = LimiterOutcome.none
    /// Its name, and what else is told of it; `nil` where the node wants nothing of the kind.
    var marks: Marks?
    /// What the service changes of this exchange, where it changes anything.
    var transformed: TransformedExchange?
    /// What several policies said of the request at hand, once they have admitted it.
    var limitReport = PolicyReport()
    /// What it holds of policies that count requests at once; -1 for nothing.
    var lease: Int32 = -1
    /// Whose limiter was asked.
    var limiterEra = 0

    // Asked several times a request, so kept beside the decoders.
    private(set) var requestComplete = true
    private(set) var responseComplete = true

    func setRequest(_ decoder: BodyDecoder) {
        request = decoder
        requestComplete = decoder.isComplete
    }

    func setResponse(_ decoder: BodyDecoder) {
        response = decoder
        responseComplete = decoder.isComplete
    }

    // Here and below, what an object holds is taken out before it is lent to a call: else each access to it is checked.

    func nextOfRequest(_ bytes: Span<UInt8>, at offset: Int) -> BodyEvent {
        var decoder = request
        let event = decoder.next(bytes, at: offset)
        setRequest(decoder)
        return event
    }

    func nextOfResponse(_ bytes: Span<UInt8>, at offset: Int) -> BodyEvent {
        var decoder = response
        let event = decoder.next(bytes, at: offset)
        setResponse(decoder)
        return event
    }

    private var lingerEnd = MonotonicTime.distantFuture

    init(
        _ connection: consuming Accepted, peer: IPAddress, trusted: Bool, worker: Worker
    ) throws(SystemError) {
        self.worker = worker
        loop = worker.loop
        self.peer = peer
        client = peer
        peerTrusted = trusted
        awaitsProxyHeader = trusted && worker.node.proxyProtocol
        acceptedAt = worker.loop.now
        startedAt = worker.loop.now
        reading = worker.node.readingPace
        stream = worker.loop.prepare(connection.take())
        try worker.loop.start(stream, self)
        let limits = worker.node.limits
        stream.deadline = Self.deadline(loop.now, limits.headerTimeout)
    }

    static func deadline(_ now: MonotonicTime, _ span: TimeSpan?) -> MonotonicTime {
        span.map { now + $0 } ?? .distantFuture
    }

    /// Whether nobody is owed anything: no answer on its way, no request that has arrived.
    var isIdle: Bool {
        phase == .head && !headBegun && exchange > 0 && stream.pendingOutput == 0 && held.isEmpty
            && !stream.mayHaveBytes
    }

    /// Whether nothing has ever arrived: made in advance, or to see whether somebody listens.
    var isSilent: Bool {
        phase == .head && !headBegun && exchange == 0 && held.isEmpty && !stream.mayHaveBytes
    }

    /// Whether no whole request has arrived: the connection has just been made, or a head is on its way.
    var bringsRequest: Bool { phase == .head && (headBegun || exchange == 0) && stream.pendingOutput == 0 }

    /// Since when it is idle, or brings a request.
    var quietSince: MonotonicTime {
        let limits = worker.node.limits
        let deadline = stream.deadline
        guard let span = bringsRequest ? limits.headerTimeout : limits.idleTimeout, deadline < .distantFuture else {
            return startedAt
        }
        return deadline - span
    }

    // MARK: Reading

    /// Whether bytes from the client are of use now. Otherwise they stay in the kernel, which slows the client down.
    private var takesInput: Bool {
        switch phase {
        // A client that reads no answers may ask no more: its answers would pile up here.
        case .head: stream.pendingOutput == 0
        case .discarding, .lingering: true
        case .exchanging: !requestComplete && backendTakesBody
        case .identifying, .deciding, .waiting, .tunneling, .closed: false
        }
    }

    /// Whether the request has been read as far as it will be and its answer is on its way.
    private var awaitsAnswer: Bool {
        switch phase {
        case .identifying, .deciding, .waiting: true
        case .exchanging: requestComplete || uploadBroken
        case .head, .tunneling, .discarding, .lingering, .closed: false
        }
    }

    func streamReadable(_ stream: Stream) {
        if stream.isReset, awaitsAnswer {
            // Nobody is left to answer. (A client that has only ended its sending may still read: RFC 9112 §9.6.)
            aborted()
            return
        }
        if !held.isEmpty, takesInput { consumeHeld() }
        var reads = DataPathLimits.readsPerTurn
        while takesInput, stream.mayHaveBytes {
            guard reads > 0 else {
                stream.resumeReading()
                return
            }
            reads -= 1
            switch held.isEmpty ? receive() : receiveMore() {
            case .bytes, .wouldBlock: break
            case .endOfFile: ended()
            case .failed: aborted()
            }
        }
    }

    /// Reads into the worker's buffer; only what is not understood yet is kept.
    private func receive() -> IOOutcome {
        var input = worker.input.take()
        input.clear()
        let outcome = stream.receive(into: &input, room: DataPathLimits.readBytes)
        if case .bytes = outcome {
            let consumed = consume(input.bytes)
            if consumed < input.count, phase != .closed {
                var rest = ByteBuffer()
                rest.append(input.bytes.extracting(consumed..<input.count))
                swap(&rest, &held)
            }
        }
        swap(&input, &worker.input)
        return outcome
    }

    /// Reads behind what is held.
    private func receiveMore() -> IOOutcome {
        var mine = held.take()
        let outcome = stream.receive(into: &mine, room: DataPathLimits.readBytes)
        swap(&mine, &held)
        if case .bytes = outcome { consumeHeld() }
        return outcome
    }

    private func consumeHeld() {
        var mine = held.take()
        let consumed = consume(mine.bytes)
        guard phase != .closed else { return }
        mine.consume(consumed)
        if !mine.isEmpty { swap(&mine, &held) }
    }

    /// Takes what it can of the bytes; returns how many.
    private func consume(_ bytes: Span<UInt8>) -> Int {
        var offset = 0
        while true {
            offset = take(bytes, from: offset)
            guard phase == .exchanging else { break }
            flushOutbound()
            // Where sending fails the exchange may end here, and nobody would come back for what follows it.
            guard phase != .exchanging, offset < bytes.count else { break }
        }
        return min(offset, bytes.count)
    }

    private func take(_ bytes: Span<UInt8>, from start: Int) -> Int {
        var offset = start
        loop: while offset < bytes.count {
            let rest = bytes.extracting(offset..<bytes.count)
            switch phase {
            case .head:
                guard takesInput else { break loop }
                let n = takeHead(rest)
                if n == 0 { break loop }
                offset += n
            case .exchanging:
                guard !requestComplete else { break loop }
                let n = forwardBody(rest)
                if n == 0 { break loop }
                offset += n
            case .discarding:
                offset += discardBody(rest)
            case .lingering:
                stream.deadline = min(lingerEnd, loop.now + DataPathLimits.lingerPause)
                return bytes.count
            case .identifying, .deciding, .waiting, .tunneling, .closed: break loop
            }
        }
        return offset
    }

    private func takeHead(_ bytes: Span<UInt8>) -> Int {
        if isOutdated { goByConfiguration() }
        if awaitsProxyHeader { return takeProxyHeader(bytes) }
        let limits = worker.node.limits
        if headBegun, !progress.hasNews(in: bytes) { return 0 }
        var fields = HeaderFields()
        swap(&fields, &worker.requestFields)
        var head = RequestHead()
        head.swapFields(&fields)
        let outcome = head.parse(bytes, limits: worker.node.headLimits)
        if case .complete = outcome {
            if headBegun { progress.reset() }
            headBegun = false
            exchange += 1
            if worker.node.authenticates { guardNames(&head, bytes) }
            if worker.node.marks { mark(&head, bytes) } else if marks != nil { marks = nil }
            begin(head, bytes)
        }
        head.swapFields(&fields)
        swap(&fields, &worker.requestFields)
        if phase == .identifying {
            // The head stays where it is, and this was no exchange yet.
            exchange -= 1
            return 0
        }
        switch outcome {
        case .complete(let length): return length
        case .needMore:
            if !headBegun {
                headBegun = true
                progress.reset()
                _ = progress.hasNews(in: bytes)
                stream.deadline = Self.deadline(loop.now, limits.headerTimeout)
            }
            return 0
        case .malformed(let violation):
            exchange += 1
            prepareRefusalWithoutHead()
            refuse(.malformed(violation), keepAlive: false)
            return bytes.count
        }
    }

    /// Hands over what has arrived behind the request.
    func takeHeld() -> ByteBuffer { held.take() }

    private func discardBody(_ bytes: Span<UInt8>) -> Int {
        var offset = 0
        while offset < bytes.count, !requestComplete {
            switch nextOfRequest(bytes, at: offset) {
            case .data(let range):
                discarded += range.count
                offset = range.upperBound
            case .needMore(let consumed): offset = consumed
            case .end(let consumed): offset = consumed
            case .malformed:
                lingerOrClose()
                return bytes.count
            }
        }
        if requestComplete {
            ready()
        } else if discarded > DataPathLimits.discardBytesMax {
            lingerOrClose()
        }
        return offset
    }

    // MARK: Phases

    /// The exchange is over and logged, and the connection may serve another.
    func ready() {
        phase = .head
        readerWatched = false
        headBegun = false
        discarded = 0
        let limits = worker.node.limits
        // While the worker drains an answer whose head had promised more is kept to it for a moment (`WorkerDrain`).
        if peerEnded && held.isEmpty {
            lingerOrClose()
            return
        }
        stream.deadline = Self.deadline(loop.now, limits.idleTimeout)
        // Pipelined requests wait their turn on the loop: nobody recurses over them.
        takeUp()
    }

    /// Comes back soon to what has arrived and was left where it is: no event announces it again.
    func takeUp() {
        if !held.isEmpty || stream.mayHaveBytes { stream.wakeSoon() }
    }

    /// Ends the connection once its output is with the kernel.
    func lingerOrClose() {
        phase = .lingering
        discarded = 0
        if stream.pendingOutput == 0 { outputEnded() } else { watchOutput() }
    }

    private func outputEnded() {
        guard phase == .lingering else { return }
        // Closing while bytes of the client's are unread sends a reset that may destroy the answer on its way
        // (RFC 9112 §9.6). Where the request was read to its end there are none.
        if requestComplete && held.isEmpty && !stream.mayHaveBytes || peerEnded {
            close()
            return
        }
        _ = held.take()
        stream.shutdownWriting()
        // Who was too slow to be served is too slow to be waited for.
        lingerEnd = loop.now + (status == 408 ? DataPathLimits.lingerPause : DataPathLimits.lingerTime)
        stream.deadline = loop.now + DataPathLimits.lingerPause
        stream.resumeReading()
    }

    private func ended() {
        peerEnded = true
        switch phase {
        case .head:
            // Between requests, or in the midst of a head: nobody waits for an answer.
            close()
        case .exchanging: aborted()
        // A client may end its side and still read: what it was answered has to reach it.
        case .discarding, .lingering: lingerOrClose()
        case .identifying, .deciding, .waiting, .tunneling, .closed: break
        }
    }

    /// The client is gone: the exchange ends without an answer.
    func aborted() {
        if phase == .exchanging || phase == .waiting || phase == .deciding || phase == .identifying {
            if phase == .exchanging, responseStarted, stream.pendingOutput > 0 { backendDelivered() }
            status = 499
            releaseBackend()
            logExchange()
        }
        abortResponse()
    }

    func close() {
        guard phase != .closed else { return }
        if phase == .exchanging { releaseBackend() }
        phase = .closed
        if lease >= 0 { releaseLease() }
        _ = held.take()
        _ = outbound.take()
        _ = logged.take()
        trailers = nil
        caller = nil
        lookedAt = nil
        transformed = nil
        marks = nil
        stream.close()
        worker.closed(self)
    }

    /// Closes in the middle of a response: with a reset, so that half is not taken for the whole.
    func abortResponse() {
        guard phase != .closed else { return }
        stream.abortOnClose()
        close()
    }

    // MARK: Stream

    func streamConnected(_ stream: Stream) {}

    func streamDrained(_ stream: Stream) {
        switch phase {
        case .exchanging:
            stream.deadline = .distantFuture
            armRequestDeadline()
            if let backend {
                armDeadline(of: backend)
                backend.stream.resumeReading()
            }
        case .lingering: outputEnded()
        case .head: ready()
        case .identifying, .deciding, .waiting, .tunneling, .discarding, .closed: break
        }
    }

    func streamFailed(_ stream: Stream, _ error: SystemError) { aborted() }

    func streamDeadlinePassed(_ stream: Stream) {
        if stream.pendingOutput > 0, phase == .exchanging || phase == .lingering || phase == .head {
            // The client reads slowly, which it may within bounds.
            lookAtReader()
            return
        }
        switch phase {
        case .head:
            if headBegun {
                exchange += 1
                prepareRefusalWithoutHead()
                refuse(.headTimedOut, keepAlive: false)
            } else if exchange > 0, stream.unread > 0, keptForReader() {
                return
            } else {
                close()
            }
        case .identifying: credentialAnswered(.unavailable)
        case .waiting: refuse(.backendsBusy, keepAlive: keepAlive)
        case .exchanging:
            if responseStarted {
                aborted()
            } else {
                refuse(.bodyTimedOut, keepAlive: false)
            }
        case .discarding, .lingering: close()
        case .deciding, .tunneling, .closed: break
        }
    }

    /// Bounds how long the client may leave everything unread.
    func watchOutput() {
        stream.deadline = reading.begin(at: loop.now)
    }

    /// The kernel still holds the end of an answer. A reader gets its time; who does not read gets a reset, or the kernel
    /// would keep it all for long.
    private func keptForReader() -> Bool {
        if readerWatched {
            lookAtReader()
            return true
        }
        readerWatched = true
        let look = reading.begin(at: loop.now)
        if look < .distantFuture { stream.deadline = look }
        return look < .distantFuture
    }

    private func lookAtReader() {
        switch reading.look(unread: stream.unread, at: loop.now) {
        case .look(let time): stream.deadline = time
        case .tooSlow: aborted()
        }
    }
}
