// hiredis's reply reader with reply objects of ours: every element goes into one flat, reused array, in the order in
// which it arrives, so a reply costs no allocation and no tree.

import CHiredis
import Glibc
import LinuxIO

/// Bytes that are no Redis reply, or a reply beyond our bounds. The connection is of no more use.
package struct RedisProtocolError: Error, Equatable, Sendable, CustomStringConvertible {
    package let reason: String

    package init(reason: String) { self.reason = reason }

    package var description: String { "Redis protocol: \(reason)" }
}

/// One element of a reply.
package struct ReplyNode: Equatable, Sendable {
    package enum Kind: UInt8, Sendable {
        case status, error, integer, bulk, null, array
    }
    package var kind: Kind
    /// The value of an integer; the number of elements of an array.
    package var number: Int64
    /// Where the text of a status, an error or a bulk string lies.
    package var text: Range<Int>
}

/// A whole reply: its elements in the order of their arrival, an array before what it holds.
package final class Reply {
    package fileprivate(set) var nodes: [ReplyNode] = []
    fileprivate var storage = ByteBuffer()
    fileprivate var overflow = false

    /// A snapshot of a service with thousands of backends and hundreds of nodes.
    fileprivate static let nodesMax = 1 << 20

    package init() {}

    fileprivate func clear() {
        nodes.removeAll(keepingCapacity: true)
        if storage.capacity > 1 << 16 { storage.release() } else { storage.clear() }
        overflow = false
    }

    fileprivate func append(_ kind: ReplyNode.Kind, number: Int64 = 0, text: Span<UInt8> = Span()) {
        guard nodes.count < Self.nodesMax else {
            overflow = true
            return
        }
        let start = storage.count
        storage.append(text)
        nodes.append(ReplyNode(kind: kind, number: number, text: start..<storage.count))
    }

    package var count: Int { nodes.count }

    /// The kind of element `index`; `null` where there is none.
    package func kind(_ index: Int) -> ReplyNode.Kind { index >= 0 && index < nodes.count ? nodes[index].kind : .null }

    /// The integer at `index`, or one written as text; `nil` for anything else.
    package func integer(_ index: Int) -> Int64? {
        guard index >= 0, index < nodes.count else { return nil }
        switch nodes[index].kind {
        case .integer: return nodes[index].number
        case .bulk, .status: return parseInteger(storage, nodes[index].text)
        case .error, .null, .array: return nil
        }
    }

    private func parseInteger(_ buffer: borrowing ByteBuffer, _ range: Range<Int>) -> Int64? {
        let bytes = buffer.bytes
        guard !range.isEmpty, range.count <= 18 else { return nil }
        var value: Int64 = 0
        for i in range {
            guard bytes[i] >= 0x30, bytes[i] <= 0x39 else { return nil }
            value = value * 10 + Int64(bytes[i] - 0x30)
        }
        return value
    }

    /// The text at `index`; empty for integers, arrays and what is absent.
    package func text(_ index: Int) -> String {
        guard index >= 0, index < nodes.count else { return "" }
        return string(storage, nodes[index].text)
    }

    private func string(_ buffer: borrowing ByteBuffer, _ range: Range<Int>) -> String {
        let bytes = buffer.bytes
        var copy: [UInt8] = []
        copy.reserveCapacity(range.count)
        for i in range { copy.append(bytes[i]) }
        return String(decoding: copy, as: UTF8.self)
    }

    /// Whether the text at `index` is exactly `word`.
    package func isText(_ index: Int, _ word: [UInt8]) -> Bool {
        guard index >= 0, index < nodes.count, nodes[index].text.count == word.count else { return false }
        return equals(storage, nodes[index].text, word)
    }

    private func equals(_ buffer: borrowing ByteBuffer, _ range: Range<Int>, _ word: [UInt8]) -> Bool {
        let bytes = buffer.bytes
        for i in 0..<word.count where bytes[range.lowerBound + i] != word[i] { return false }
        return true
    }
}

/// Turns bytes into replies.
@safe
package struct ReplyReader: ~Copyable {
    private let reader: UnsafeMutablePointer<redisReader>
    private let functions: UnsafeMutablePointer<redisReplyObjectFunctions>
    /// The last reply; valid until the next `next`.
    package let reply = Reply()
    private var unanswered = 0

    /// The bytes of one reply. hiredis would take 512 MiB.
    private static let replyBytesMax = 16 << 20

    package init() {
        unsafe functions = .allocate(capacity: 1)
        var table = redisReplyObjectFunctions()
        unsafe table.createString = createString
        unsafe table.createArray = createArray
        unsafe table.createInteger = createInteger
        unsafe table.createNil = createNil
        unsafe table.freeObject = freeObject
        unsafe functions.initialize(to: table)
        guard let made = unsafe redisReaderCreateWithFunctions(functions) else { preconditionFailure("out of memory") }
        unsafe reader = made
        unsafe reader.pointee.privdata = Unmanaged.passUnretained(reply).toOpaque()
    }

    deinit {
        unsafe redisReaderFree(reader)
        unsafe functions.deallocate()
    }

    package mutating func feed(_ bytes: Span<UInt8>) {
        unanswered += bytes.count
        let reader = unsafe self.reader
        unsafe bytes.withUnsafeBytes { raw in
            guard let base = raw.baseAddress else { return }
            _ = unsafe redisReaderFeed(reader, base.assumingMemoryBound(to: CChar.self), raw.count)
        }
    }

    /// Whether another whole reply has been read into `reply`.
    package mutating func next() throws(RedisProtocolError) -> Bool {
        if !pending { reply.clear() }
        var object: UnsafeMutableRawPointer? = nil
        let status = unsafe redisReaderGetReply(reader, &object)
        guard status == REDIS_OK else {
            let text = unsafe withUnsafeBytes(of: reader.pointee.errstr) { raw in
                unsafe String(decoding: raw.prefix { $0 != 0 }, as: UTF8.self)
            }
            throw RedisProtocolError(reason: text)
        }
        if reply.overflow { throw RedisProtocolError(reason: "a reply of too many elements") }
        guard unsafe object != nil else {
            pending = !reply.nodes.isEmpty
            if unanswered > Self.replyBytesMax { throw RedisProtocolError(reason: "a reply of too many bytes") }
            return false
        }
        pending = false
        unanswered = 0
        return true
    }

    /// A part of the reply at hand has been read.
    private var pending = false
}

// hiredis calls these for each element. Functions of the file: C can only call what captures nothing.

/// What stands for every object: hiredis only asks that it is not NULL.
private func placeholder(_ task: UnsafePointer<redisReadTask>) -> UnsafeMutableRawPointer? {
    unsafe task.pointee.privdata
}

private func target(_ task: UnsafePointer<redisReadTask>) -> Reply? {
    guard let pointer = unsafe task.pointee.privdata else { return nil }
    return unsafe Unmanaged<Reply>.fromOpaque(pointer).takeUnretainedValue()
}

private func createString(
    _ task: UnsafePointer<redisReadTask>?, _ text: UnsafeMutablePointer<CChar>?, _ length: Int
) -> UnsafeMutableRawPointer? {
    guard let task = unsafe task, let text = unsafe text else { return nil }
    let kind: ReplyNode.Kind
    switch unsafe task.pointee.type {
    case REDIS_REPLY_STATUS: kind = .status
    case REDIS_REPLY_ERROR: kind = .error
    default: kind = .bulk
    }
    let raw = unsafe UnsafeRawBufferPointer(start: text, count: length)
    unsafe target(task)?.append(kind, text: Span(_unsafeBytes: raw))
    return unsafe placeholder(task)
}

private func createArray(
    _ task: UnsafePointer<redisReadTask>?, _ count: sluice_element_count
) -> UnsafeMutableRawPointer? {
    guard let task = unsafe task else { return nil }
    unsafe target(task)?.append(.array, number: Int64(count))
    return unsafe placeholder(task)
}

private func createInteger(_ task: UnsafePointer<redisReadTask>?, _ value: Int64) -> UnsafeMutableRawPointer? {
    guard let task = unsafe task else { return nil }
    unsafe target(task)?.append(.integer, number: value)
    return unsafe placeholder(task)
}

private func createNil(_ task: UnsafePointer<redisReadTask>?) -> UnsafeMutableRawPointer? {
    guard let task = unsafe task else { return nil }
    unsafe target(task)?.append(.null)
    return unsafe placeholder(task)
}

private func freeObject(_ object: UnsafeMutableRawPointer?) {}
