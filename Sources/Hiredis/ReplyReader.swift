// The reading half of RESP2: hiredis parses, and the functions below put what it finds into a `RedisReply`.
//
// hiredis would build a tree with malloc and, for an array, allocate by the announced length before a single element
// has come. With reply functions of ours it allocates nothing but its input buffer, whose size is bounded here: it
// keeps an incomplete reply whole, however long its announced length.

import CHiredis

/// Turns bytes, cut anywhere, into replies.
@safe
package struct ReplyReader: ~Copyable {
    /// The last reply that `next` completed.
    package let reply: RedisReply

    private let reader: UnsafeMutablePointer<redisReader>
    private let functions: UnsafeMutablePointer<redisReplyObjectFunctions>
    private var failure: RedisProtocolError?
    private var complete = true

    package init(bounds: RedisReplyBounds = RedisReplyBounds()) {
        reply = RedisReply(bounds: bounds)
        unsafe functions = .allocate(capacity: 1)
        unsafe functions.initialize(
            to: redisReplyObjectFunctions(
                createString: takeString, createArray: takeArray, createInteger: takeInteger, createNil: takeNull,
                freeObject: dropObject))
        // Like every allocation in Swift, one that the system refuses ends the process.
        guard let reader = unsafe redisReaderCreateWithFunctions(functions) else {
            preconditionFailure("out of memory")
        }
        unsafe self.reader = reader
        unsafe reader.pointee.privdata = Unmanaged.passUnretained(reply).toOpaque()
    }

    deinit {
        unsafe redisReaderFree(reader)
        unsafe functions.deallocate()
    }

    /// Takes bytes as they came.
    package mutating func feed(_ bytes: Span<UInt8>) {
        guard failure == nil, !bytes.isEmpty else { return }
        let result = unsafe bytes.withUnsafeBytes { source in
            unsafe redisReaderFeed(reader, source.baseAddress?.assumingMemoryBound(to: CChar.self), source.count)
        }
        precondition(result == REDIS_OK, "out of memory")
    }

    /// Whether a further reply is complete and stands in `reply`.
    ///
    /// - Throws: what makes the stream unreadable, now and at every later call.
    package mutating func next() throws(RedisProtocolError) -> Bool {
        if let failure { throw failure }
        if complete { reply.clear() }
        complete = false
        var root: UnsafeMutableRawPointer? = nil
        let result = unsafe redisReaderGetReply(reader, &root)
        if let violation = reply.violation { throw fail(violation) }
        guard result == REDIS_OK else { throw fail(.malformed(errorText)) }
        complete = unsafe root != nil
        if !complete, unsafe Int(clamping: reader.pointee.len - reader.pointee.pos) > reply.bounds.bytesMax {
            throw fail(.tooManyBytes(max: reply.bounds.bytesMax))
        }
        return complete
    }

    private mutating func fail(_ error: RedisProtocolError) -> RedisProtocolError {
        failure = error
        return error
    }

    private var errorText: String {
        unsafe withUnsafeBytes(of: reader.pointee.errstr) { bytes in
            unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }
}

// MARK: What hiredis calls
//
// Functions of the file: a closure in their place would inherit the caller's isolation. Each returns an address that
// only says "made", or nil, upon which hiredis stops.

/// hiredis only compares it with NULL and hands it to `dropObject`.
private let made = 1

private func reply(_ task: UnsafePointer<redisReadTask>?) -> Unmanaged<RedisReply>? {
    guard let state = unsafe task?.pointee.privdata else { return nil }
    return unsafe Unmanaged<RedisReply>.fromOpaque(state)
}

private func token(_ wasMade: Bool) -> UnsafeMutableRawPointer? {
    wasMade ? unsafe UnsafeMutableRawPointer(bitPattern: made) : nil
}

private func takeString(
    _ task: UnsafePointer<redisReadTask>?, _ text: UnsafeMutablePointer<CChar>?, _ length: Int
) -> UnsafeMutableRawPointer? {
    guard let target = unsafe reply(task), let task = unsafe task, let text = unsafe text, length >= 0 else {
        return nil
    }
    let kind: RedisReply.Kind
    switch unsafe task.pointee.type {
    case REDIS_REPLY_STATUS: kind = .status
    case REDIS_REPLY_ERROR: kind = .error
    default:
        kind = .string
        // hiredis 0.14 skips the two bytes behind a bulk string without looking; they are in its buffer by now.
        guard unsafe text[length] == 0x0d, unsafe text[length + 1] == 0x0a else {
            unsafe target._withUnsafeGuaranteedRef { $0.refuse(.unterminatedString) }
            return nil
        }
    }
    let appended = unsafe text.withMemoryRebound(to: UInt8.self, capacity: length) { start in
        unsafe target._withUnsafeGuaranteedRef { reply in
            unsafe reply.append(kind, text: UnsafeBufferPointer(start: start, count: length))
        }
    }
    return unsafe token(appended)
}

private func takeArray(_ task: UnsafePointer<redisReadTask>?, _ count: Int32) -> UnsafeMutableRawPointer? {
    guard let target = unsafe reply(task) else { return nil }
    let appended = unsafe target._withUnsafeGuaranteedRef { reply in
        guard Int(count) <= reply.bounds.elementsMax else {
            reply.refuse(.tooManyElements(max: reply.bounds.elementsMax))
            return false
        }
        return reply.append(.array, value: Int64(count))
    }
    return unsafe token(appended)
}

private func takeInteger(_ task: UnsafePointer<redisReadTask>?, _ value: Int64) -> UnsafeMutableRawPointer? {
    guard let target = unsafe reply(task) else { return nil }
    return unsafe token(target._withUnsafeGuaranteedRef { $0.append(.integer, value: value) })
}

private func takeNull(_ task: UnsafePointer<redisReadTask>?) -> UnsafeMutableRawPointer? {
    guard let target = unsafe reply(task) else { return nil }
    return unsafe token(target._withUnsafeGuaranteedRef { $0.append(.null) })
}

private func dropObject(_ object: UnsafeMutableRawPointer?) {}
