"""The datasets that --list shows: what they are, where they come from, and whether they need a network or an extra."""

OTHER = 'any other name'
# name -> (what it is, where it comes from). data.DATASETS opens the plain names.
DATASETS = {
    'digits': ('grey images of handwritten digits, 8x8', 'from scikit-learn, no network'),
    'diabetes': ('10 measurements of 442 patients and a number', 'from scikit-learn, no network'),
    'number_words': ('English number words and Chinese numerals', 'computed, no network'),
    'pydoc': ('passages of the documentation of Python', 'from the Python that runs, no network'),
    'fashion_mnist': ('grey images of clothing, 28x28', 'from Debian\'s package dataset-fashion-mnist or --data_dir, '
                      'no network; else by TensorFlow Datasets, needs a network and the extra tfds'),
    'digit_scenes': ('colour images of 1 to 6 of these digits, 128x128, with boxes and masks', 'computed, no network'),
    'fashion_scenes': ('colour images of 1 to 6 of these articles, 128x128, with boxes and masks', 'computed of '
                       'fashion_mnist, which it needs'),
    'gettext/LANG': ('messages of programs in English and LANG, e.g. gettext/de', 'from this machine\'s catalogs, no '
                     'network; under the licences of those programs, mostly GPL; needs the extra text'),
    'files/FOLDER': ('your images or texts by class, images with boxes or masks, texts in two languages', 'from FOLDER '
                     'or --data_dir/FOLDER, no network; needs the extra vision for boxes and masks, text for subwords'),
    OTHER: ('images or texts with labels, translations: cifar10, imdb, sst2, ...', 'from the folder of that name in '
            '--data_dir (or CONGRUENT_DATA), no network; else by TensorFlow Datasets, needs the extra tfds, and a '
            'network the first time'),
}
NAMED = [name for name in DATASETS if name != OTHER]
