// From a backend's bytes to the client.

import Configuration
import EventLoop
import HTTP1
import LinuxIO
import Primitives

/// What became of bytes from a backend.
enum ResponseProgress {
    case all
    /// The bytes from `consumed` on are the beginning of a head.
    case needsMore(consumed: Int)
    case finished(reusable: Bool)
    /// The exchange has ended otherwise, and the connection with it.
    case abandoned
}

extension ClientConnection {
    /// Whether more of the response can be taken: while the client is slow, the rest stays in the backend's socket.
    var takesResponse: Bool { phase == .exchanging && stream.pendingOutput == 0 }

    /// Takes bytes of the backend's answer and passes them on.
    func takeResponse(_ bytes: Span<UInt8>, from connection: BackendConnection) -> ResponseProgress {
        guard phase == .exchanging, backend === connection else { return .abandoned }
        var output = worker.output.take()
        output.clear()
        let progress = take(bytes, connection, &output)
        swap(&output, &worker.output)
        // Refusing and switching write what goes before them by themselves.
        switch progress {
        case .malformed:
            backend = nil
            connection.close()
            failed(.malformed, reused: false, nothingSent: false)
            return .abandoned
        case .switched(let offset):
            switchProtocols(connection, bytes.extracting(offset..<bytes.count))
            return .abandoned
        case .needsMore(let offset): return phase == .exchanging ? .needsMore(consumed: offset) : .abandoned
        case .taken(let offset):
            guard phase == .exchanging else { return .abandoned }
            if responseComplete { return finish(connection, surplus: offset < bytes.count) }
            if !isJudged { answerGoesOn() }
            armDeadline(of: connection)
            return .all
        }
    }

    private enum Taken {
        /// All up to this offset.
        case taken(Int)
        case needsMore(Int)
        case switched(Int)
        case malformed
    }

    private func take(
        _ bytes: Span<UInt8>, _ connection: BackendConnection, _ output: inout ByteBuffer
    ) -> Taken {
        var offset = 0
        while !responseStarted {
            switch takeHead(bytes.extracting(offset..<bytes.count), connection, &output) {
            case .interim(let length): offset += length
            case .final(let length): offset += length
            case .switched(let length): return .switched(offset + length)
            case .needsMore:
                sendOutput(&output, Span<UInt8>())
                return .needsMore(offset)
            case .malformed: return .malformed
            }
        }
        return takeBody(bytes, from: offset, &output)
    }

    // MARK: Head

    private enum HeadProgress {
        case interim(Int)
        case final(Int)
        case switched(Int)
        case needsMore
        case malformed
    }

    private func takeHead(
        _ bytes: Span<UInt8>, _ connection: BackendConnection, _ output: inout ByteBuffer
    ) -> HeadProgress {
        guard !bytes.isEmpty else { return .needsMore }
        var fields = HeaderFields()
        swap(&fields, &worker.responseFields)
        var head = ResponseHead()
        head.swapFields(&fields)
        defer {
            head.swapFields(&fields)
            swap(&fields, &worker.responseFields)
        }
        switch head.parse(bytes, limits: worker.node.headLimits) {
        case .needMore: return .needsMore
        case .malformed: return .malformed
        case .complete(let length):
            guard head.status >= 200, let lane else { return interim(head, bytes, length, connection, &output) }
            let framing = head.framing(requestMethod: method)
            // What is here of the body is looked at before the client hears of the answer: it can be told of a 502 yet.
            if framing == .chunked, isMalformed(framing, bytes, from: length) { return .malformed }
            begin(lane, head, framing, bytes, length, &output)
            return .final(length)
        }
    }

    @inline(never)
    private func isMalformed(_ framing: ResponseFraming, _ bytes: Span<UInt8>, from length: Int) -> Bool {
        BodyDecoder(framing, limits: worker.node.headLimits).violation(in: bytes, from: length) != nil
    }

    /// RFC 9110 §15.2: interim answers are passed on to clients that know them.
    private func interim(
        _ head: borrowing ResponseHead, _ bytes: Span<UInt8>, _ length: Int, _ connection: BackendConnection,
        _ output: inout ByteBuffer
    ) -> HeadProgress {
        if head.status == 101 {
            guard let lane, accepts(head, bytes) else { return .malformed }
            let rewrite = ResponseRewrite(
                delivery: .asAnnounced, keepAlive: true, clientVersion: version, upgrade: head.upgrade,
                dropped: marks?.droppedOfAnswers ?? FieldSet())
            let start = output.count
            rewrite.write(head, bytes, via: worker.node.via, to: &output)
            // It is the answer to this request; the only one.
            dress(lane, head, bytes, from: start, .never, &output)
            return .switched(length)
        }
        interims += 1
        guard interims <= DataPathLimits.interimsMax else { return .malformed }
        if version == .http11 {
            let rewrite = ResponseRewrite(delivery: .asAnnounced, keepAlive: true, clientVersion: version)
            rewrite.write(head, bytes, via: worker.node.via, to: &output)
        }
        if head.status == 100 { continueReceived(connection) }
        return .interim(length)
    }

    /// The head is that of the final answer, which begins with it.
    @inline(never)
    private func begin(
        _ lane: Lane, _ head: borrowing ResponseHead, _ framing: ResponseFraming, _ bytes: Span<UInt8>, _ length: Int,
        _ output: inout ByteBuffer
    ) {
        setResponse(BodyDecoder(framing, limits: worker.node.headLimits))
        // Most answers are here as a whole, which one look at their backend is enough for.
        var isWhole = false
        switch framing {
        case .none:
            delivery = .asAnnounced
            isWhole = true
        case .length(let count):
            delivery = .asAnnounced
            isWhole = count <= Int64(bytes.count - length)
        case .chunked, .untilClose: delivery = version == .http11 ? .chunked : .untilClose
        }
        var compressing = Compressing.never
        if lane.transforms != nil, let transformed {
            compressing = self.compressing(transformed, head, bytes, framing)
            if compressing == .now { delivery = .compressed }
        }
        if delivery == .untilClose { keepAlive = false }
        // Without the whole request there is no telling where the next one begins.
        if !requestComplete || worker.draining { keepAlive = false }
        backendKeepsAlive = head.isReusable(requestMethod: method)
        status = head.status
        isJudged = isWhole || BackendFault.isBlamed(for: status)
        responseStarted = true
        answeredAt = loop.now
        replayable = false
        if isTrial { trialAnswered() }
        let rewrite = ResponseRewrite(
            delivery: delivery, keepAlive: keepAlive, clientVersion: version,
            upgrade: status == 426 ? offeredUpgrade(head, bytes) : nil,
            dropped: marks?.droppedOfAnswers ?? FieldSet())
        let start = output.count
        rewrite.write(
            head, bytes, via: lane.via, date: head.fields.contains(.date) ? [] : worker.date(), to: &output)
        dress(lane, head, bytes, from: start, compressing, &output)
        worker.backendAnswered(lane, backendIndex, status: status, isWhole: isWhole, since: sentAt)
    }

    /// Adds what the gateway says to the head of an answer, which begins at `start` of `output` and ends it.
    @inline(__always)
    private func dress(
        _ lane: Lane, _ head: borrowing ResponseHead, _ bytes: Span<UInt8>, from start: Int, _ kind: Compressing,
        _ output: inout ByteBuffer
    ) {
        if let marks { marks.complete(head, bytes, from: start, &output) }
        if lane.transforms != nil, let transformed { transformHead(transformed, from: start, kind, &output) }
        if lane.tellsLimits {
            // Transforms may have said something of them too.
            if lane.node.tellsLegacyLimits || head.fields.contains(.rateLimit) || head.fields.contains(.rateLimitPolicy)
                || lane.transforms != nil
            {
                tellLimits(besideOthersFrom: start, &output)
                return
            }
            // In front of the line that ends the head.
            output.truncate(to: output.count - 2)
            appendLimits(to: &output)
            output.append("\r\n")
        }
    }

    // MARK: Body

    private func takeBody(_ bytes: Span<UInt8>, from start: Int, _ output: inout ByteBuffer) -> Taken {
        var offset = start
        while offset < bytes.count, !responseComplete {
            switch nextOfResponse(bytes, at: offset) {
            case .data(let range):
                offset = range.upperBound
                responseBytes += range.count
                switch delivery {
                case .chunked:
                    output.appendChunk(bytes.extracting(range))
                case .compressed:
                    responseBytes -= range.count
                    guard compress(bytes.extracting(range)) else { return .malformed }
                case .asAnnounced where range.count <= DataPathLimits.copiedBytesMax,
                    .untilClose where range.count <= DataPathLimits.copiedBytesMax:
                    output.append(bytes.extracting(range))
                case .asAnnounced, .untilClose:
                    // Head and body leave in one call, and the body is not copied.
                    sendOutput(&output, bytes.extracting(range))
                    if phase != .exchanging { return .taken(offset) }
                }
            case .needMore(let consumed), .end(let consumed):
                offset = consumed
                if acceptsTrailers, !response.trailer.isEmpty {
                    keptTrailers.response.append(bytes.extracting(response.trailer))
                }
            case .malformed:
                // What came before is good.
                sendOutput(&output, Span<UInt8>())
                return .malformed
            }
        }
        if responseComplete, delivery == .chunked {
            endResponseChunks(in: &output)
        } else if delivery == .compressed {
            flushCompressed(isLast: responseComplete, &output)
        }
        sendOutput(&output, Span<UInt8>())
        return .taken(offset)
    }

    /// Writes the last chunk with the trailers that came behind it.
    private func endResponseChunks(in output: inout ByteBuffer) {
        if let trailers {
            output.appendLastChunk(
                trailers: trailers.response.bytes, without: lane?.guardedOfAnswers ?? GuardedNames.none)
        } else {
            output.appendLastChunk()
        }
    }

    private func sendOutput(_ output: inout ByteBuffer, _ body: Span<UInt8>) {
        guard !output.isEmpty || !body.isEmpty else { return }
        let outcome = stream.send(output.bytes, body)
        output.clear()
        switch outcome {
        case .failed: aborted()
        case .bytes, .wouldBlock, .endOfFile: if stream.pendingOutput > 0 { watchOutput() }
        }
    }

    // MARK: End

    private func finish(_ connection: BackendConnection, surplus: Bool) -> ResponseProgress {
        backend = nil
        backendDelivered()
        leaveBackend()
        let reusable = backendKeepsAlive && !surplus && requestComplete && !uploadBroken
        finishExchange()
        return .finished(reusable: reusable)
    }

    private func finishExchange() {
        logExchange()
        outbound.clear()
        if outbound.capacity > DataPathLimits.outboundBytesKept { _ = outbound.take() }
        if keepAlive && requestComplete { ready() } else { lingerOrClose() }
    }

    /// The backend has ended its side, or the connection broke.
    func backendEnded(_ connection: BackendConnection, _ error: SystemError?) {
        guard backend === connection else {
            connection.close()
            return
        }
        if responseStarted, error == nil, response.endOfInput == .complete {
            // RFC 9112 §6.3: the end of the connection was that of the body, and nothing is missing.
            setResponse(BodyDecoder(ResponseFraming.none, limits: worker.node.headLimits))
            var last = ByteBuffer()
            if delivery == .chunked { last.appendLastChunk() }
            if delivery == .compressed { flushCompressed(isLast: true, &last) }
            sendOutput(&last, Span<UInt8>())
            guard phase == .exchanging else { return }
            backend = nil
            backendDelivered()
            leaveBackend()
            connection.close()
            finishExchange()
            return
        }
        backend = nil
        let reused = connection.exchangesServed > 0 && !connection.hasBegunHead
        connection.close()
        failed(.reset, reused: reused, nothingSent: false)
    }

    func logExchange() {
        worker.count(self)
        if lease >= 0 { releaseLease() }
        outboundSent = 0
    }
}
