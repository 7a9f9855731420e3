"""Building blocks: one mechanism per file, shared by models or too large for a model's file.

Letters in the shapes:

    B  rows of a batch                 N  rows of a split
    S  slots: columns of ids           F  fields
    D  embedding size                  H  width of a hidden layer
    G  general feature domains         C  channels (feature crosses)
    P  pairs of fields
"""
