"""Building blocks: one mechanism a file, each used by two models or more.

Letters in the shapes:

    B  rows of a batch                 N  rows of a dataset part
    S  slots: columns of ids           F  fields
    D  embedding size                  H  width of a hidden layer
    G  general feature domains         C  channels (feature crosses)
    P  pairs of fields
"""
