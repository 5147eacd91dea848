// What a Redis server may send: the same replies, and the same refusal, however the bytes are cut.

import Hiredis
import Primitives

private struct Replies: Equatable {
    var read: [String] = []
    var failure: RedisProtocolError?
}

private func read(_ input: [UInt8], cut places: [Int]) throws -> Replies {
    var reader = ReplyReader(bounds: ReplyBounds(valuesMax: 256, bytesMax: 64 << 10))
    var replies = Replies()
    for (start, end) in zip(places, places.dropFirst()) {
        reader.feed(input.span.extracting(start..<end))
        do {
            while try reader.next() {
                let reply = reader.reply
                try checkInside(reply)
                replies.read.append(description(reply))
            }
        } catch let error as RedisProtocolError {
            replies.failure = error
            return replies
        }
    }
    return replies
}

func checkReplies(_ input: [UInt8]) throws {
    let whole = try read(input, cut: [0, input.count])
    let pieces = try read(input, cut: cuts(of: input.count, seed: stableHash(input.span), everywhereUpTo: 64))
    try require(whole == pieces, "cut otherwise: \(shown(input)): \(whole), \(pieces)")
}

/// An array holds what it says, and every text lies where it can be read.
private func checkInside(_ reply: Reply) throws {
    try require(reply.count > 0 && reply.end(of: 0) == reply.count, "\(reply.count) values, not all of one reply")
    for index in 0..<reply.count {
        _ = reply.integer(index)
        _ = reply.bytes(index)
    }
    _ = reply.firstError
}

private func description(_ reply: Reply) -> String {
    (0..<reply.count).map { index in
        let number = reply.elementCount(index).map(Int64.init) ?? reply.integer(index)
        return "\(reply.kind(index)) \(number.map(String.init) ?? "") \(shown(reply.bytes(index)))"
    }.joined(separator: "; ")
}
