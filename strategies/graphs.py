"""Walks a traced graph: from an operation to the functions that it calls, and to their graphs."""


def called_functions(op):
    """Names of the functions that an operation calls: a loop's body, a branch, a call."""
    return [value.func.name for value in op.node_def.attr.values() if value.HasField('func')] + [
        function.name for value in op.node_def.attr.values() for function in value.list.func]


def function_graph(graph, name):
    """The FuncGraph of a function that `graph` calls, or None.

    None also for a function that has no graph but a definition alone, such as the loops of tf.nn.ctc_loss: the shapes
    of its arguments are known at its calls only, so there is nothing to look at before a compiler has put them in.
    """
    while graph is not None:
        if name in graph._functions:     # no public way from a call to its graph
            return getattr(graph._functions[name], 'graph', None)
        graph = getattr(graph, 'outer_graph', None)
    return None
