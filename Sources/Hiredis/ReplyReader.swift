// The reading half of RESP2: hiredis parses, and the functions below put what it finds into one flat `Reply`.
//
// hiredis would build a tree with malloc, and allocate for an array by its announced length before an element has come.
// With reply functions of ours it allocates nothing but its input buffer, which is bounded here, because it keeps an
// incomplete reply whole, however long the announced length.

import CHiredis
import Glibc

/// Turns bytes, cut anywhere, into replies.
@safe
package struct ReplyReader: ~Copyable {
    /// The last reply that `next` completed.
    package let reply: Reply

    private let reader: UnsafeMutablePointer<redisReader>
    private let functions: UnsafeMutablePointer<redisReplyObjectFunctions>
    private var failure: RedisProtocolError?
    /// Whether what stands in `reply` is whole, so that the next one begins anew.
    private var complete = true

    package init(bounds: ReplyBounds = ReplyBounds()) {
        reply = Reply(bounds: bounds)
        unsafe functions = .allocate(capacity: 1)
        unsafe functions.initialize(
            to: redisReplyObjectFunctions(
                createString: takeString, createArray: takeArray, createInteger: takeInteger, createNil: takeNull,
                freeObject: dropObject))
        // Like every allocation in Swift, one that the system refuses ends the process.
        guard let made = unsafe redisReaderCreateWithFunctions(functions) else { preconditionFailure("out of memory") }
        unsafe reader = made
        unsafe reader.pointee.privdata = Unmanaged.passUnretained(reply).toOpaque()
    }

    deinit {
        unsafe redisReaderFree(reader)
        unsafe functions.deallocate()
    }

    /// Takes bytes as they came.
    package mutating func feed(_ bytes: Span<UInt8>) {
        guard failure == nil, !bytes.isEmpty else { return }
        let reader = unsafe self.reader
        let result = unsafe bytes.withUnsafeBytes { raw in
            unsafe redisReaderFeed(reader, raw.baseAddress?.assumingMemoryBound(to: CChar.self), raw.count)
        }
        precondition(result == REDIS_OK, "out of memory")
    }

    /// Whether another whole reply has been read into `reply`.
    ///
    /// - Throws: what makes the stream unreadable, now and at every later call.
    package mutating func next() throws(RedisProtocolError) -> Bool {
        if let failure { throw failure }
        if complete {
            // Where nothing is left, the next reply has not begun.
            guard unsafe reader.pointee.pos < reader.pointee.len else { return false }
            reply.clear()
        }
        var root: UnsafeMutableRawPointer? = nil
        let status = unsafe redisReaderGetReply(reader, &root)
        guard status == REDIS_OK else { throw fail(reply.violation ?? .malformed(reasonText)) }
        complete = unsafe root != nil
        if !complete {
            let pending = unsafe reader.pointee.len - reader.pointee.pos
            if pending > reply.bounds.bytesMax || announced > reply.bytesLeft {
                throw fail(.tooManyBytes(max: reply.bounds.bytesMax))
            }
        }
        return complete
    }

    /// How long the string is said to be that has not wholly come; 0 where none is under way.
    ///
    /// hiredis has passed over the byte that says what comes, and takes a line of any other kind as soon as it ends. So
    /// a line of digits that has ended and still stands there is the length of a string. What cannot fit is not waited
    /// for.
    private var announced: Int {
        let (position, end) = unsafe (reader.pointee.pos, reader.pointee.len)
        guard let buffer = unsafe reader.pointee.buf else { return 0 }
        var length: UInt64 = 0
        for index in position..<min(end, position + Self.lengthDigits + 1) {
            let byte = unsafe UInt8(bitPattern: buffer[index])
            if byte == UInt8(ascii: "\r") {
                guard index > position, index + 1 < end, unsafe buffer[index + 1] == 0x0a else { return 0 }
                return Int(clamping: length)
            }
            // A longer number is refused by hiredis, when its line ends.
            guard index - position < Self.lengthDigits, byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else {
                return 0
            }
            length = length * 10 + UInt64(byte - UInt8(ascii: "0"))
        }
        return 0
    }

    /// Of the longest number that hiredis takes for a length.
    private static let lengthDigits = 19

    /// Passes over `text`, which is the same `unit` bytes again and again, as far as it stands next, between two replies.
    ///
    /// - Returns: how many times the unit stood there whole.
    package mutating func skip(_ text: Span<UInt8>, unit: Int) -> Int {
        guard failure == nil, complete, unit > 0 else { return 0 }
        let (position, end) = unsafe (reader.pointee.pos, reader.pointee.len)
        guard let buffer = unsafe reader.pointee.buf else { return 0 }
        let most = min(end - position, text.count) / unit
        let count = unsafe text.withUnsafeBytes { raw in
            guard most > 0, let wanted = raw.baseAddress else { return 0 }
            let next = unsafe buffer + position
            if unsafe memcmp(next, wanted, most * unit) == 0 { return most }
            var count = 0
            while count < most, unsafe memcmp(next + count * unit, wanted, unit) == 0 { count += 1 }
            return count
        }
        unsafe reader.pointee.pos += count * unit
        return count
    }

    private mutating func fail(_ error: RedisProtocolError) -> RedisProtocolError {
        failure = error
        return error
    }

    private var reasonText: String {
        unsafe withUnsafeBytes(of: reader.pointee.errstr) { raw in
            unsafe String(decoding: raw.prefix { $0 != 0 }, as: UTF8.self)
        }
    }
}

// hiredis calls these for each value. Functions of the file: a closure in their place would inherit the caller's
// isolation. Each returns an address that only says "made", or NULL, upon which hiredis stops.

private func target(_ task: UnsafePointer<redisReadTask>?) -> Unmanaged<Reply>? {
    guard let pointer = unsafe task?.pointee.privdata else { return nil }
    return unsafe Unmanaged<Reply>.fromOpaque(pointer)
}

/// What stands for every object: hiredis compares it with NULL and hands it to `dropObject`.
private func placeholder(_ made: Bool) -> UnsafeMutableRawPointer? {
    made ? unsafe UnsafeMutableRawPointer(bitPattern: 1) : nil
}

private func takeString(
    _ task: UnsafePointer<redisReadTask>?, _ text: UnsafeMutablePointer<CChar>?, _ length: Int
) -> UnsafeMutableRawPointer? {
    guard let reply = unsafe target(task), let task = unsafe task, let text = unsafe text, length >= 0 else {
        return nil
    }
    let kind: ReplyNode.Kind
    switch unsafe task.pointee.type {
    case REDIS_REPLY_STATUS: kind = .status
    case REDIS_REPLY_ERROR: kind = .error
    default:
        kind = .bulk
        // hiredis 0.14 skips the two bytes behind a bulk string without a look; they are in its buffer by now.
        guard unsafe text[length] == 0x0d, unsafe text[length + 1] == 0x0a else {
            unsafe reply._withUnsafeGuaranteedRef { $0.refuse(.unterminatedString) }
            return nil
        }
    }
    let raw = unsafe UnsafeRawBufferPointer(start: text, count: length)
    let made = unsafe reply._withUnsafeGuaranteedRef { unsafe $0.append(kind, text: Span(_unsafeBytes: raw)) }
    return unsafe placeholder(made)
}

private func takeArray(
    _ task: UnsafePointer<redisReadTask>?, _ count: sluice_element_count
) -> UnsafeMutableRawPointer? {
    guard let reply = unsafe target(task) else { return nil }
    let made = unsafe reply._withUnsafeGuaranteedRef { reply in
        // Refused by the announcement: what cannot fit is not waited for.
        guard Int(clamping: count) < reply.bounds.valuesMax else {
            reply.refuse(.tooManyValues(max: reply.bounds.valuesMax))
            return false
        }
        return reply.append(.array, number: Int64(clamping: count))
    }
    return unsafe placeholder(made)
}

private func takeInteger(_ task: UnsafePointer<redisReadTask>?, _ value: Int64) -> UnsafeMutableRawPointer? {
    guard let reply = unsafe target(task) else { return nil }
    return unsafe placeholder(reply._withUnsafeGuaranteedRef { $0.append(.integer, number: value) })
}

private func takeNull(_ task: UnsafePointer<redisReadTask>?) -> UnsafeMutableRawPointer? {
    guard let reply = unsafe target(task) else { return nil }
    return unsafe placeholder(reply._withUnsafeGuaranteedRef { $0.append(.null) })
}

private func dropObject(_ object: UnsafeMutableRawPointer?) {}
