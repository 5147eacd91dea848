// From a parsed head to a backend that has the request.

import Balancing
import Configuration
import EventLoop
import HTTP1
import Health
import Identity
import LinuxIO
import Primitives
import RateLimiting
import Transforms

extension ClientConnection: LimitRequester {
    // MARK: Head, route, identify, limit

    /// Takes up the request whose head is complete.
    func begin(_ head: borrowing RequestHead, _ bytes: Span<UInt8>) {
        let node = worker.node
        startedAt = loop.now
        stream.deadline = .distantFuture
        method = head.method
        version = head.version
        hasHost = head.form == .absolute || head.fields.contains(.host)
        expectsContinue = head.expectsContinue
        setRequest(BodyDecoder(head.framing, limits: node.headLimits))
        requestChunked = head.framing == .chunked
        acceptsTrailers = head.acceptsTrailers
        if trailers != nil { trailers = nil }
        requestBytes = 0
        if !requestComplete { upload = UploadPace(node.bodyFloor) }
        responseStarted = false
        interims = 0
        responseBytes = 0
        status = 0
        isTrial = false
        lane = nil
        limiterOutcome = .none
        // Behind a proxy the one before may be another's request.
        if caller != nil { caller = nil }
        if transformed != nil { transformed = nil }
        staleRetried = false
        tried = 0
        usedBackend = false
        let requestsMax = node.limits.requestsPerConnection.map { UInt64($0) } ?? .max
        let hiddenKey = node.authenticates ? keyParameter(head, bytes) : nil
        let keptFor = node.limits.keepAliveTimeout ?? .max
        keepAlive =
            head.keepAlive && exchange < requestsMax && !worker.draining && startedAt - acceptedAt < keptFor
        if node.accessLog {
            var line = logged.take()
            line.clear()
            line.append(bytes.extracting(head.methodBytes))
            line.append(UInt8(ascii: " "))
            if let hiddenKey {
                appendTarget(head, bytes, without: hiddenKey, to: &line)
            } else {
                line.append(bytes.extracting(head.target))
            }
            swap(&line, &logged)
        }
        resolveClient(head, bytes)

        // RFC 9110 §7.4: nobody may get what belongs to `https` over a connection that proves nothing. A trusted proxy
        // may have ended TLS.
        if head.isHTTPS, !peerTrusted {
            refuse(.malformed(Violation(.misdirected, at: head.target.lowerBound)))
            return
        }
        if Self.isServerWide(head) {
            answer(.options, head, bytes)
            return
        }
        let path = bytes.extracting(head.path)
        guard let (index, prefixLength) = node.routes.service(of: path) else {
            refuse(.serviceNotFound)
            return
        }
        guard !PathHazard(path: path).escapes else {
            refuse(.pathEscapes)
            return
        }
        let lane = worker.lanes[index]
        self.lane = lane
        let service = lane.service
        // Only the first would be taken out of the query: whatever the service asks, this is no request to pass on.
        if let hiddenKey, hiddenKey.isRepeated, hidesKeys {
            refuse(.unidentified(.ambiguous))
            return
        }
        if let transforms = service.transforms, answersByItself(transforms, head, bytes) { return }
        guard service.takes(method: bytes.extracting(head.methodBytes)) else {
            refuse(.methodNotAllowed(allow: service.allowLine))
            return
        }
        attemptsLeft = service.settings.retries.attempts
        var hopsLeft: Int?
        switch method {
        case .trace, .options:
            switch Self.forwarding(head, bytes) {
            case .onwards(let left): hopsLeft = left
            case .here(let own):
                answer(own, head, bytes)
                return
            case .refused(let violation):
                refuse(.malformed(violation))
                return
            }
        case .get, .head, .post, .put, .delete, .patch, .connect, .other: break
        }
        if service.bodyBytesMax > 0 {
            setRequest(BodyDecoder(head.framing, limits: node.headLimits, bytesMax: Int64(service.bodyBytesMax)))
            if case .length(let length) = head.framing, length > Int64(service.bodyBytesMax) {
                refuse(.malformed(Violation(.bodyTooLarge, at: 0)), keepAlive: false)
                return
            }
        }
        // What is here of a body is looked at before a backend hears of the request: it may act on the head alone.
        if requestChunked, let violation = request.violation(in: bytes, from: head.length) {
            refuse(.malformed(violation), keepAlive: false)
            return
        }
        if node.authenticates {
            guard identify(head, bytes, index, hiddenKey) else { return }
            if caller != nil, transformed != nil { renewLines(head, bytes) }
        }
        hash = service.hash(head, bytes, client: client, user: node.authenticates ? caller?.userHash : nil)
        let rewrite = RequestRewrite(
            stripped: service.settings.stripPrefix ? prefixLength : 0,
            identity: ClientIdentity(peer: peer, peerTrusted: peerTrusted, client: client, scheme: clientScheme),
            believed: node.believedHeader, replacesHost: service.replacesHost,
            upgrade: takeUpgrade(head, bytes, service), hopsLeft: hopsLeft,
            hidden: hidesKeys ? hiddenKey?.cut ?? 0..<0 : 0..<0)
        outboundSent = 0
        replayable = true
        var written = outbound.take()
        written.clear()
        rewrite.write(head, bytes, via: node.via, to: &written)
        if node.authenticates, let caller { written.append(caller.forwardLines) }
        if let marks { marks.appendRequestLines(to: &written) }
        if let transforms = service.transforms, let refusal = transformRequest(transforms, head, bytes, &written) {
            refuse(refusal)
            return
        }
        tailStart = written.count
        swap(&written, &outbound)
        tailLength = 0
        pathStart = head.methodBytes.count + 1
        baseLength = 0
        if let table = node.policyTable {
            table.collect(
                head, bytes, service: index, client: client, caller: node.authenticates ? caller : nil,
                into: &worker.subjects)
            if table.isWeighted { table.weigh(head, bytes, &worker.subjects, into: &worker.costs) }
            limitByAll()
        } else {
            limit(lane)
        }
    }

    private func limit(_ lane: Lane) {
        let decision: LimitDecision
        if let limiter = worker.limiter {
            decision = limiter.check(SubjectKey(client), requester: self, token: exchange)
        } else if let store = worker.tokenBuckets {
            decision = .decided(store.take(SubjectKey(client), at: SystemClock.monotonic()))
        } else {
            dispatch(lane)
            return
        }
        switch decision {
        case .decided(let verdict): decided(verdict)
        case .pending: phase = .deciding
        }
    }

    /// The limiter's answer to a request that had to wait for it.
    package func limitDecided(token: UInt64, verdict: Verdict) {
        guard phase == .deciding, token == exchange else { return }
        decided(verdict)
        if phase == .exchanging { flushOutbound() }
        // The body, or the next request, may be here already.
        if phase != .closed { takeUp() }
    }

    private func decided(_ verdict: Verdict) {
        switch verdict {
        case .admit:
            limiterOutcome = .admitted
            dispatch()
        case .refuse(let retryAfter):
            limiterOutcome = .refused
            worker.node.refused[worker.index].count(SubjectKey(client))
            refuse(.rateLimited(retryAfter: retryAfter))
        }
    }

    // MARK: Pick, connect

    // Lane and pool are handed on: of an argument, what lies one step away is not counted with each use.

    func dispatch() {
        if let lane { dispatch(lane) }
    }

    private func dispatch(_ lane: Lane) {
        if !asksForTrial(lane) { pickAndConnect(lane) }
    }

    func pickAndConnect(_ lane: Lane) {
        guard let index = lane.balancer.pick(hash: hash) else {
            refuse(.noHealthyBackend)
            return
        }
        lane.retryBudget.requested(at: loop.now)
        connect(lane, index, fresh: false)
    }

    func connect(_ lane: Lane, _ index: Int, fresh: Bool) {
        backendIndex = index
        tried |= BalancerSnapshot.bit(index)
        uploadBroken = false
        lane.state.began(index)
        counted = true
        usedBackend = true
        phase = .exchanging
        connect(to: lane.pools[index], fresh: fresh)
    }

    @inline(never)
    private func connect(to pool: BackendPool, fresh: Bool) {
        setBase(pool.basePath)
        if hasHost { setTail(pool.headTail) } else { setTail(pool.headTailWithHost) }
        acquire(from: pool, fresh: fresh)
    }

    private func acquire(from pool: BackendPool, fresh: Bool) {
        sentAt = loop.now
        switch pool.acquire(for: self, exchange: exchange, fresh: fresh) {
        case .reused(let connection): connection.serve(self)
        case .connecting(let connection): backend = connection
        case .queued: phase = .waiting
        case .failed: backendFailed(nil, .refused)
        }
    }

    func isWaiting(exchange: UInt64) -> Bool { phase == .waiting && self.exchange == exchange }

    /// A connection that another exchange has finished with.
    func backendAvailable(_ connection: BackendConnection) {
        phase = .exchanging
        sentAt = loop.now
        connection.serve(self)
        stream.deadline = .distantFuture
        flushOutbound()
        takeUp()
    }

    /// The pool has a place for a new connection.
    func placeAvailable(in pool: BackendPool) {
        phase = .exchanging
        stream.deadline = .distantFuture
        acquire(from: pool, fresh: true)
    }

    func backendConnected(_ connection: BackendConnection) {
        flushOutbound()
        if !requestComplete { stream.wakeSoon() }
    }

    /// The backend has another address, which is tried instead.
    func backendReplaced(_ connection: BackendConnection, by next: BackendConnection) {
        if backend === connection { backend = next }
    }

    /// Puts the fields that name the backend behind the head, in the place of another's.
    private func setTail(_ tail: [UInt8]) {
        if outbound.count == tailStart + tailLength {
            var head = outbound.take()
            head.truncate(to: tailStart)
            head.append(tail)
            swap(&head, &outbound)
        } else {
            // A part of the body follows already: a request that is sent again.
            replaceOutbound(tailStart, tailLength, with: tail)
        }
        tailLength = tail.count
    }

    /// Puts the backend's base path before the forwarded path.
    private func setBase(_ base: [UInt8]) {
        guard !base.isEmpty || baseLength > 0 else { return }
        replaceOutbound(pathStart, baseLength, with: base)
        tailStart += base.count - baseLength
        baseLength = base.count
    }

    private func replaceOutbound(_ start: Int, _ length: Int, with bytes: [UInt8]) {
        let old = outbound.take()
        var new = ByteBuffer()
        new.append(old.bytes.extracting(0..<start))
        new.append(bytes)
        new.append(old.bytes.extracting((start + length)..<old.count))
        swap(&new, &outbound)
    }

    // MARK: Send

    /// Whether the backend can take more of the body now.
    var backendTakesBody: Bool {
        guard let backend else { return false }
        return backend.isConnected && backend.stream.pendingOutput == 0 && !uploadBroken
    }

    /// Takes body bytes; returns how many: none while the backend is not ready, so that the caller keeps them and stops
    /// reading. What can go directly goes directly, behind what is gathered in `outbound`.
    func forwardBody(_ bytes: Span<UInt8>) -> Int {
        guard backendTakesBody, let backend else { return 0 }
        var offset = 0
        while offset < bytes.count, !requestComplete {
            let before = request
            switch nextOfRequest(bytes, at: offset) {
            case .data(let range):
                requestBytes += range.count
                if requestChunked {
                    gather { $0.appendChunk(bytes.extracting(range)) }
                } else if outbound.count + range.count <= DataPathLimits.replayBytesMax, replayable, method.isIdempotent
                {
                    gather { $0.append(bytes.extracting(range)) }
                } else {
                    let nothingSent = outboundSent == 0 && replayable
                    if case .failed = sendPending(bytes.extracting(range), backend) {
                        if nothingSent {
                            // All of it can go to another connection yet.
                            setRequest(before)
                            requestBytes -= range.count
                        } else {
                            // What could not be sent is kept nowhere.
                            replayable = false
                        }
                        sendFailed(nothingSent: nothingSent)
                        return nothingSent ? offset : range.upperBound
                    }
                    replayable = false
                    outbound.clear()
                    outboundSent = 0
                }
                offset = range.upperBound
            case .needMore(let consumed), .end(let consumed):
                offset = consumed
                if !request.trailer.isEmpty { keptTrailers.request.append(bytes.extracting(request.trailer)) }
            case .malformed(let violation):
                refuseOrAbort(.malformed(violation))
                return bytes.count
            }
        }
        if requestComplete, requestChunked { gather { endRequestChunks(in: &$0) } }
        return offset
    }

    var keptTrailers: Trailers {
        if let trailers { return trailers }
        let new = Trailers()
        trailers = new
        return new
    }

    /// Writes the last chunk with the trailers that came behind it.
    private func endRequestChunks(in output: inout ByteBuffer) {
        if let trailers {
            output.appendLastChunk(trailers: trailers.request.bytes, without: lane?.guarded ?? GuardedNames.none)
        } else {
            output.appendLastChunk()
        }
    }

    @inline(__always)
    private func gather(_ body: (inout ByteBuffer) -> Void) {
        var gathered = outbound.take()
        body(&gathered)
        swap(&gathered, &outbound)
    }

    private func sendPending(_ body: Span<UInt8>, _ backend: BackendConnection) -> IOOutcome {
        var pending = outbound.take()
        let outcome = backend.stream.send(pending.bytes.extracting(outboundSent..<pending.count), body)
        swap(&pending, &outbound)
        return outcome
    }

    /// Sends what has gathered for the backend, and sets the clocks that now run.
    func flushOutbound() {
        guard phase == .exchanging, let backend, backend.isConnected else { return }
        let gathered = outbound.count
        if outboundSent < gathered {
            let nothingSent = outboundSent == 0 && replayable
            if case .failed = sendPending(Span<UInt8>(), backend) {
                sendFailed(nothingSent: nothingSent)
                return
            }
            outboundSent = gathered
            if !replayable || !method.isIdempotent || gathered > DataPathLimits.replayBytesMax {
                replayable = false
                outbound.clear()
                outboundSent = 0
            }
        }
        armDeadline(of: backend)
        armRequestDeadline()
    }

    /// Everything that was sent has left for the backend: the client may go on.
    func backendDrained() {
        flushOutbound()
        if phase == .exchanging, !requestComplete { stream.wakeSoon() }
    }

    // MARK: Failure and retry

    private func sendFailed(nothingSent: Bool) {
        guard let connection = backend else { return }
        if !nothingSent {
            uploadFailed(connection)
            return
        }
        backend = nil
        connection.close()
        failed(.reset, reused: connection.exchangesServed > 0, nothingSent: nothingSent)
    }

    /// The backend takes no more of the request. Its answer may lie in the socket all the same, or be announced in this
    /// turn: it is looked for before giving up, and the end of the connection tells that there is none.
    func uploadFailed(_ connection: BackendConnection) {
        uploadBroken = true
        connection.stream.resumeReading()
        connection.stream.deadline = Self.deadline(
            loop.now, connection.pool.timeouts.response)
    }

    /// A connection could not be made, or broke before the answer began.
    func backendFailed(_ connection: BackendConnection?, _ fault: BackendFault) {
        backend = nil
        failed(
            fault, reused: (connection?.exchangesServed ?? 0) > 0,
            nothingSent: fault == .refused || fault == .connectTimeout, isEvidence: connection != nil)
    }

    func failed(_ fault: BackendFault, reused: Bool, nothingSent: Bool, isEvidence: Bool = true) {
        guard phase == .exchanging, let service else { return }
        // A pooled connection that the backend has closed meanwhile says nothing of the backend's health. One on which it
        // has begun to answer was none of those.
        let stale = reused && fault == .reset && !responseStarted && interims == 0
        // Nor does a connection that this node could not even begin: it may be out of descriptors or ports.
        if !stale, isEvidence { blameBackend(service, fault) }
        leaveBackend()
        if responseStarted {
            abortAfterStart()
            return
        }
        if mayBeSentAgain(after: fault, nothingSent: nothingSent) {
            if stale, !staleRetried {
                staleRetried = true
                again(backendIndex, fresh: true)
                return
            }
            if let next = nextBackend(after: fault) {
                again(next, fresh: false)
                return
            }
        }
        switch fault {
        case .responseTimeout, .connectTimeout: refuse(.backendTimedOut)
        case .malformed: refuse(.backendMalformed)
        case .refused, .reset, .serverError: refuse(.backendFailed)
        }
    }

    private func abortAfterStart() {
        logExchange()
        abortResponse()
    }

    /// Lets go of the backend connection, which is in the midst of an exchange and of no more use.
    func releaseBackend() {
        leaveBackend()
        guard let connection = backend else { return }
        backend = nil
        connection.close()
    }

    /// The exchange is no longer in flight at its backend.
    func leaveBackend() {
        guard counted else { return }
        counted = false
        // Whoever knows of an outcome has told it before.
        if isTrial { endTrial(.void) }
        lane?.state.ended(backendIndex)
    }

    func refuseOrAbort(_ refusal: Refusal) {
        if responseStarted {
            releaseBackend()
            abortAfterStart()
        } else {
            refuse(refusal, keepAlive: false)
        }
    }

    // MARK: Refuse

    /// Answers the request here. The connection lives on where the rest of the request can be told from what follows.
    func refuse(_ refusal: Refusal, keepAlive wanted: Bool? = nil) {
        let keep = keepsConnection(wanted)
        releaseBackend()
        status = refusal.status
        var output = worker.output.take()
        output.clear()
        var fields = ByteBuffer()
        appendLimits(to: &fields)
        var members = ByteBuffer()
        if let marks {
            marks.appendResponseLines(to: &fields)
            marks.appendMember(to: &members)
        }
        if let transformed { fields.append(transformed.linesBeside) }
        refusal.write(
            to: &output, date: worker.date(), options: ownOptions(keep: keep), limit: limitFields,
            report: worker.report, authentication: worker.node.authentication, fields: fields, members: members)
        if let transformed { insertLines(transformed.linesInPlace.span, into: &output) }
        sendOwn(&output, keep: keep)
    }

    /// Whether the connection can live on behind an answer of the gateway's own.
    func keepsConnection(_ wanted: Bool?) -> Bool {
        // A client that waits for 100 (Continue) may or may not send the body now: only closing is unambiguous.
        let tooLong = request.remaining.map { $0 > Int64(DataPathLimits.discardBytesMax) } ?? false
        return (wanted ?? keepAlive) && !worker.draining && (requestComplete || !expectsContinue && !tooLong)
    }

    func ownOptions(keep: Bool) -> ResponseOptions {
        var options: ResponseOptions = keep ? (version == .http10 ? .keepAlive : []) : .close
        if method == .head { options.insert(.head) }
        return options
    }

    /// Sends an answer that was written into the worker's buffer, gives the buffer back, and takes the connection to what
    /// follows.
    func sendOwn(_ output: inout ByteBuffer, keep: Bool) {
        let bodyAwaited = !requestComplete
        responseBytes = output.count
        let outcome = stream.send(output.bytes)
        swap(&output, &worker.output)
        logExchange()
        if case .failed = outcome {
            close()
            return
        }
        if stream.pendingOutput > 0 { watchOutput() }
        guard phase != .closed else { return }
        if !keep {
            lingerOrClose()
        } else if bodyAwaited {
            phase = .discarding
            stream.deadline = Self.deadline(loop.now, worker.node.limits.bodyTimeout)
            // The body may be here already, unread since the backend did not take it: no event announces it again.
            stream.wakeSoon()
        } else {
            ready()
        }
    }
}
