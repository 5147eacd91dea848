/// Values that are found by a small number and never move, in storage that is used again.
struct Slots<Element> {
    private var elements: [Element?] = []
    private var free: [Int] = []

    var count: Int { elements.count - free.count }
    /// Behind the last slot that was ever used.
    var end: Int { elements.count }
    var bytes: Int { elements.capacity * MemoryLayout<Element?>.stride + free.capacity * MemoryLayout<Int>.stride }

    mutating func insert(_ element: Element) -> Int {
        if let index = free.popLast() {
            elements[index] = element
            return index
        }
        elements.append(element)
        return elements.count - 1
    }

    /// Takes a value out; `nil` where there is none.
    mutating func remove(_ index: Int) -> Element? {
        guard elements.indices.contains(index), let element = elements[index].take() else { return nil }
        free.append(index)
        return element
    }

    /// The value in a slot that is not empty: in its place, so that a look at one of its parts copies nothing.
    subscript(index: Int) -> Element {
        _read { yield elements[index]! }
        _modify { yield &elements[index]! }
    }

    func contains(_ index: Int) -> Bool { elements.indices.contains(index) && elements[index] != nil }
}

/// First in, first out, in one array that is used again.
struct Queue<Element> {
    private var elements: [Element] = []
    private var head = 0

    var isEmpty: Bool { head == elements.count }
    var count: Int { elements.count - head }
    var bytes: Int { elements.capacity * MemoryLayout<Element>.stride }
    var first: Element? { isEmpty ? nil : elements[head] }

    mutating func append(_ element: Element) { elements.append(element) }

    mutating func popFirst() -> Element? {
        guard !isEmpty else { return nil }
        let element = elements[head]
        head += 1
        if head == elements.count {
            elements.removeAll(keepingCapacity: true)
            head = 0
        } else if head >= 256, head * 2 >= elements.count {
            elements.removeFirst(head)
            head = 0
        }
        return element
    }

    var last: Element? { isEmpty ? nil : elements[elements.count - 1] }

    mutating func popLast() -> Element? {
        guard !isEmpty else { return nil }
        let element = elements.removeLast()
        if head == elements.count {
            elements.removeAll(keepingCapacity: true)
            head = 0
        }
        return element
    }

    /// Lets `body` change the youngest element.
    mutating func updateLast(_ body: (inout Element) -> Bool) -> Bool {
        isEmpty ? false : body(&elements[elements.count - 1])
    }
}
